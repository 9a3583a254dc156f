"""A folder of adapters by name, on this disk or behind any fsspec URL. Listing and verifying need no torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, final

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from foreword.adapters.folder import FILES, MANIFEST, RUN_SUFFIX, Folder, check_name, local_names, read_whole
from foreword.adapters.manifest import Manifest, Scores, check_present, problems, read_manifest
from foreword.errors import AdapterError, UsageError

if TYPE_CHECKING:
    from foreword.adapters.adapter import Adapter

Result = TypeVar("Result")


@dataclass(frozen=True)
class Card:
    """One line of a list: what an adapter is, or the `problem` that keeps it from being read."""

    name: str
    method: str = ""
    kind: str = ""
    base: str = ""
    length: int = 0
    num_bytes: int = 0
    scores: Scores = field(default_factory=dict)
    problem: str | None = None


@final
class AdapterStore:
    """Adapters under one folder or URL (`prompts`, `s3://bucket/prompts`, `memory://x`).

    A local save is atomic. A remote one uploads the manifest last and removes an old one first: readers never get a mixture, but
    an interrupted upload leaves no adapter.
    """

    def __init__(self, url: str | Path) -> None:
        try:
            self.files, self.root = url_to_fs(str(url))
        except (ValueError, ImportError) as error:
            raise UsageError(
                f"'{url}' cannot be opened as a store ({error}); give a folder, or install what its protocol needs."
            ) from error
        self.url = str(url).rstrip("/") or "/"
        self.local = isinstance(self.files, LocalFileSystem)

    def path(self, name: str) -> str:
        """Where an adapter of this name is, or would be."""
        return f"{self.url}/{check_name(name)}"

    def names(self) -> Sequence[str]:
        """Folders that hold an adapter, complete or broken, sorted; raises AdapterError if the store cannot be read."""
        try:
            found = local_names(Path(self.root)) if self.local else self._remote_names()
        except OSError as error:
            raise AdapterError(f"store '{self.url}' cannot be read ({error.strerror or error}); give a folder of adapters.") from error
        return [name for name in found if not name.endswith(RUN_SUFFIX)]

    def list(self) -> Sequence[Card]:
        """A card for each adapter, broken ones too; raises AdapterError if the store cannot be read."""
        return [self.card(name) for name in self.names()]

    def card(self, name: str) -> Card:
        """What an adapter's manifest says; its numbers are not read."""
        try:
            return self._read(name, lambda folder: _card(name, folder))
        except AdapterError as error:
            return Card(name, problem=str(error))

    def manifest(self, name: str) -> Manifest:
        """Everything about an adapter but its numbers; raises AdapterError for what cannot be read."""
        return self._read(name, read_manifest)

    def version(self, name: str) -> tuple[Manifest, str]:
        """An adapter's manifest and its digest, which differs for every other adapter under this name. Raises as `manifest` does."""
        return self._read(name, lambda folder: (read_manifest(folder), hashlib.sha256(folder.read(MANIFEST)).hexdigest()[:16]))

    def mark(self, name: str) -> str:
        """A value that is cheap to read and changes when the adapter is replaced; raises AdapterError where there is none."""
        path = f"{self.root}/{check_name(name)}/{MANIFEST}"
        try:
            if not self.local:
                return str(self.files.ukey(path))
            found = os.stat(path)
            return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"
        except OSError:
            return self.version(name)[1]  # under its second name, or missing: reading it gives the error

    def load(self, name: str) -> Adapter:
        """Read an adapter; raises AdapterError as `Adapter.load` does."""
        from foreword.adapters.adapter import Adapter

        return self._read(name, Adapter.read)

    def verify(self, name: str) -> Sequence[str]:
        """What is wrong with an adapter, one sentence each; empty for a complete one. Reads every tensor."""
        try:
            return self._read(name, problems)
        except AdapterError as error:
            return [str(error)]

    def save(self, name: str, adapter: Adapter, *, overwrite: bool = False) -> str:
        """Save an adapter under a name and return its path; raises AdapterError if one is there and `overwrite` is not set."""
        path = self.path(name)
        if self.local:
            return str(adapter.save(Path(self.root) / name, overwrite=overwrite))
        if not overwrite and self.files.exists(f"{self.root}/{name}"):
            raise AdapterError(f"'{path}' already holds an adapter; choose another name, or give --force (overwrite=True) to replace it.")
        files = adapter.files(path)
        manifest = f"{self.root}/{name}/{MANIFEST}"
        try:
            if self.files.exists(manifest):
                self.files.rm_file(manifest)
            self.files.makedirs(f"{self.root}/{name}", exist_ok=True)
            for file, data in files.items():
                self.files.pipe_file(f"{self.root}/{name}/{file}", data)
        except OSError as error:
            raise AdapterError(f"adapter '{path}' could not be uploaded ({error}); try again.") from error
        return path

    def _read(self, name: str, read: Callable[[Folder], Result]) -> Result:
        check_name(name)
        if self.local:
            return read_whole(Path(self.root) / name, read)
        return read(_remote(self.files, f"{self.root}/{name}", f"{self.url}/{name}"))

    def _remote_names(self) -> Sequence[str]:
        files = self.files.find(self.root, maxdepth=2)
        return sorted(
            {path.split("/")[-2] for path in files if path.split("/")[-1] in FILES and path.count("/") == self.root.count("/") + 2}
        )


def _card(name: str, folder: Folder) -> Card:
    manifest = read_manifest(folder)
    check_present(folder)
    return Card(name, manifest.recipe.method, manifest.task["kind"], manifest.base, manifest.length, manifest.size, manifest.scores)


def _remote(files: AbstractFileSystem, root: str, where: str) -> Folder:
    """An adapter's folder behind fsspec."""

    def read(name: str) -> bytes:
        try:
            data = files.cat_file(f"{root}/{name}")
        except OSError as error:
            raise AdapterError(f"adapter '{where}' has a {name} that cannot be read ({error}); try again.") from error
        return data if isinstance(data, bytes) else data.encode()

    try:
        names = frozenset(path.rsplit("/", 1)[-1] for path in files.ls(root, detail=False))
    except OSError as error:
        raise AdapterError(f"adapter '{where}' cannot be read ({error}); check the name, or list the store.") from error
    return Folder(where, names, read)
