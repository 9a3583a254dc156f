"""An adapter's folder on disk: read and replaced atomically.

A rename cannot replace a folder that is not empty, so a replacement takes two: NAME → .NAME.old, then .NAME.new → NAME. A kill at
any moment leaves the old folder complete under one of its two names; readers and writers look for both. Standard library only.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from foreword.errors import AdapterError

MANIFEST, TENSORS, CONFIG = "foreword.json", "adapter_model.safetensors", "adapter_config.json"
FILES = (TENSORS, CONFIG, MANIFEST)  # in the order of writing
RUN_SUFFIX = ".run"  # the folder of a training run is next to the adapter and has this ending

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))}
_ATTEMPTS = 5

Result = TypeVar("Result")


def check_name(name: str) -> str:
    """The name if it is valid for an adapter (one plain folder name, on every system); raises AdapterError otherwise."""
    device = name.split(".")[0].lower() in _DEVICES
    if not _NAME.fullmatch(name) or name.endswith((".", RUN_SUFFIX)) or device:
        raise AdapterError(
            f"adapter name {name!r} cannot be used; give at most 100 letters (a to z), digits, '.', '_' or '-', "
            "beginning with a letter or digit, not ending in '.' or '.run', and no device name such as 'con'."
        )
    return name


@dataclass(frozen=True)
class Folder:
    """Files of one adapter, wherever they are: `where` is for messages, `names` are its files, `read` gives the bytes of one and `size` their number,
    0 where that is not known before they are read.
    """

    where: str
    names: frozenset[str]
    read: Callable[[str], bytes]
    size: Callable[[str], int] = lambda _: 0


def read_whole(path: str | Path, read: Callable[[Folder], Result]) -> Result:
    """`read` applied to the folder at `path`, again if the folder was replaced meanwhile, so that old and new files never mix."""
    path = Path(path)
    for _ in range(_ATTEMPTS):
        place = _standing(path)
        before = _identity(place)
        try:
            return read(_opened(place, str(path)))
        except AdapterError:
            if before is not None and _identity(place) == before:  # None: moved before the first look
                raise
    raise AdapterError(f"adapter '{path}' was replaced {_ATTEMPTS} times while it was being read; try again.")


def local_names(root: Path) -> list[str]:
    """Names of the folders under `root` with a file of an adapter, and of those that have their second name after a kill."""
    with os.scandir(root) as entries:  # isfile is False, not an error, for what cannot be entered
        found = {entry.name for entry in entries if any(os.path.isfile(f"{entry.path}/{name}") for name in FILES)}
    rescued = {name[1:-4] for name in found if name.startswith(".") and name.endswith(".old") and os.path.isfile(root / name / MANIFEST)}
    return sorted({name for name in found if not name.startswith(".")} | rescued)


def write_folder(path: str | Path, files: Mapping[str, bytes], *, overwrite: bool = False) -> Path:
    """Write a folder atomically; the last of `files` makes it complete.

    Raises AdapterError if something is there already (unless `overwrite` is set and it is a folder of this kind), or if the system refuses.
    """
    target = _target(path)
    new, old = _beside(target, "new"), _beside(target, "old")
    mark = list(files)[-1]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.parent) as parent:
            _recover(target, old, mark)
            _refuse(target, path, mark, overwrite)
            try:
                _fill(new, files)
                _swap(new, target, old)
            finally:
                shutil.rmtree(new, ignore_errors=True)
            _sync(parent)
            _discard(old, mark)
    except OSError as error:
        raise AdapterError(
            f"adapter '{path}' could not be written ({error.strerror or error}); nothing was replaced; "
            "free some space or choose another folder."
        ) from error
    return target


def check_target(path: str | Path, *, overwrite: bool = False) -> None:
    """Raise AdapterError if `write_folder` would refuse an adapter there: this is checked before training."""
    try:
        _refuse(_target(path), path, MANIFEST, overwrite)
    except OSError as error:
        raise AdapterError(f"'{path}' cannot be written to ({error.strerror or error}); choose another folder.") from error


def _target(path: str | Path) -> Path:
    """The folder of a path; raises AdapterError for a name that is not valid."""
    check_name(Path(path).name)
    if "\0" in str(path):
        raise AdapterError(f"path {str(path)!r} contains a NUL character, which file systems do not allow; remove it.")
    return Path(os.path.realpath(path))


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name}.{kind}")


def _standing(path: Path) -> Path:
    """The folder, or its second name if a kill left it there; raises AdapterError if there is neither."""
    second = _beside(Path(os.path.realpath(path)), "old")
    for _ in range(_ATTEMPTS):  # a writer may swap the two between the two checks
        if path.is_dir():
            return path
        if (second / MANIFEST).is_file():
            return second
    kind = "is a file, but an adapter is a folder" if path.is_file() else "does not exist"
    raise AdapterError(f"adapter '{path}' {kind}; give the folder that holds its {MANIFEST}.")


def _opened(place: Path, where: str) -> Folder:
    def look(name: str, value: Callable[[Path], Result]) -> Result:
        try:
            if not stat.S_ISREG((place / name).stat().st_mode):  # a pipe would be read for ever
                raise AdapterError(f"adapter '{where}' has a {name} that is not a file; check the folder.")
            return value(place / name)
        except OSError as error:
            raise AdapterError(f"adapter '{where}' has a {name} that cannot be read ({error.strerror}); check the folder.") from error

    def read(name: str) -> bytes:
        return look(name, Path.read_bytes)

    def size(name: str) -> int:
        return look(name, lambda path: path.stat().st_size)

    try:
        return Folder(where, frozenset(os.listdir(place)), read, size)
    except OSError as error:
        raise AdapterError(f"adapter '{where}' cannot be read ({error.strerror}); check the folder.") from error


def _identity(place: Path) -> tuple[int, int] | None:
    try:
        found = place.stat()
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns


@contextmanager
def _locked(parent: Path) -> Iterator[int]:
    """The parent folder, opened; writers into one parent take turns, and a killed one lets go."""
    handle = os.open(parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks, as on some clusters: do not write one adapter from two processes there
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def _recover(target: Path, old: Path, mark: str) -> None:
    """After a kill between the two renames, give the old folder its name back."""
    if not target.exists() and (old / mark).is_file():
        os.rename(old, target)


def _refuse(target: Path, path: str | Path, mark: str, overwrite: bool) -> None:
    """Raise unless there is nothing at the target, or something that may be replaced."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir():
        raise AdapterError(f"'{path}' is a file, so no adapter can be written there; choose another name.")
    if mark != MANIFEST and (target / MANIFEST).is_file():
        raise AdapterError(f"'{path}' holds a Foreword adapter, which would be lost; choose another folder.")
    inside = sorted(entry.name + "/" for entry in target.iterdir() if entry.is_dir())
    if inside or not (target / mark).is_file():
        holds = inside[0] if inside else f"files, but no {mark}"
        raise AdapterError(f"'{path}' is a folder that holds {holds}, so it is not replaced; choose another name.")
    if not overwrite:
        raise AdapterError(f"'{path}' already holds an adapter; choose another name, or give --force (overwrite=True) to replace it.")


def _fill(new: Path, files: Mapping[str, bytes]) -> None:
    if new.exists():
        shutil.rmtree(new)
    new.mkdir()
    for name, data in files.items():
        with (new / name).open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    handle = os.open(new, os.O_RDONLY)
    try:
        _sync(handle)
    finally:
        os.close(handle)


def _sync(folder: int) -> None:
    """Sync a folder's entries; their files are already synced, and some file systems do not support this."""
    with suppress(OSError):
        os.fsync(folder)


def _swap(new: Path, target: Path, old: Path) -> None:
    """Two renames; the first is undone if the second fails."""
    if old.exists():
        shutil.rmtree(old)  # left over from a kill after an earlier swap; `_recover` has seen that it is not needed
    replaced = target.exists()
    if replaced:
        os.rename(target, old)
    try:
        os.rename(new, target)
    except BaseException:
        if replaced:
            os.rename(old, target)
        raise


def _discard(old: Path, mark: str) -> None:
    """Remove what was replaced, its mark first, so that half of it is never taken for an adapter; the next write does what fails here."""
    try:
        (old / mark).unlink(missing_ok=True)
    except OSError:
        return
    shutil.rmtree(old, ignore_errors=True)
