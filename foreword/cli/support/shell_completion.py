"""Shell completion: fixed choices, and folders that are or contain adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from foreword.adapters.folder import MANIFEST

Completer = Callable[[str], list[str]]


def choices(names: Sequence[str]) -> Completer:
    """Complete one of these names."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


def adapter_names(incomplete: str) -> list[str]:
    """Complete the path of an adapter, one folder level at a time; folders without adapters are left out."""
    return list(_below(incomplete))


def _below(incomplete: str) -> Iterator[str]:
    begun, slash, last = incomplete.rpartition("/")
    try:
        entries = sorted(entry for entry in Path(begun + slash or ".").iterdir() if entry.is_dir())
    except OSError:
        return  # nothing to offer in a folder that cannot be read
    for entry in entries:
        if entry.name.startswith(last) and not entry.name.startswith("."):
            if (entry / MANIFEST).is_file():
                yield begun + slash + entry.name
            elif next(entry.glob(f"*/{MANIFEST}"), None):
                yield begun + slash + entry.name + "/"
