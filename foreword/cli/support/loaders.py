"""Loads adapters by path and models by name, with a message while the user waits."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from foreword.adapters.folder import read_whole
from foreword.adapters.manifest import Manifest, read_manifest
from foreword.cli.support.output import is_main, screen
from foreword.errors import AdapterError, ModelError, UsageError
from foreword.recipe import Quantize
from foreword.shape import Kind

if TYPE_CHECKING:
    from foreword.adapters.adapter import Adapter
    from foreword.adapters.store import AdapterStore
    from foreword.backbone.frozen_model import FrozenModel


def open_model(name: str, *, dtype: str = "auto", device: str | None = None, quantize: Quantize | None = None) -> FrozenModel:
    """Load a base model without output, except download bars on a terminal; raises ModelError if it cannot be loaded."""
    check_model(name)
    with _loading(name):
        from foreword.backbone.loading.logging import quiet

        quiet(downloads=sys.stderr.isatty() and "HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ)
        from foreword.backbone.loading.load_model import load

        return load(name, dtype=dtype, device=device, quantize=quantize)


def base_of_store(store: AdapterStore, model: str | None) -> tuple[str, Quantize | None]:
    """The base model to load, and how it is quantised, as the adapters record it; raises UsageError if they differ."""
    bases: dict[tuple[str, Quantize | None], str] = {}
    for name in store.names():
        try:
            manifest = store.manifest(name)
        except AdapterError:
            continue  # the server reports the error at a request
        bases.setdefault((manifest.base, manifest.recipe.quantize), name)
        if model is not None:
            break
    if model is not None:
        return model, next(iter(bases), ("", None))[1]
    if not bases:
        raise UsageError(f"'{store.url}' holds no adapter that says which base model it needs; give one with --model.")
    if len(bases) > 1:
        named = " and ".join(f"'{base}' ({name})" for (base, _), name in list(bases.items())[:2])
        raise UsageError(f"the adapters in '{store.url}' have different base models, {named}; choose one with --model.")
    return next(iter(bases))


def model_kind(name: str) -> Kind:
    """Which stacks a base model has, by its config alone; raises ModelError if it is not supported."""
    check_model(name)
    from foreword.backbone.loading.logging import quiet

    quiet(downloads=False)
    from foreword.backbone.loading.load_model import kind_of_model

    return kind_of_model(name)


def check_model(name: str) -> None:
    """Raise ModelError for a path that does not exist."""
    if (name.startswith((".", "/", "~")) or name.count("/") > 1) and not Path(name).is_dir():
        raise ModelError(f"model '{name}' is not an existing folder; give a hub id or a folder with config.json.")


def warm_up() -> None:
    """Import slow packages, with a message while the user waits."""
    with spinner("starting"):
        import foreword.evaluation.evaluate  # noqa: F401  (imported early, for the message)


def open_adapter(where: str) -> Adapter:
    """Read an adapter from its folder, or from a store's URL such as s3://bucket/prompts/name."""
    from foreword.adapters.adapter import Adapter

    if "://" not in where:
        return Adapter.load(where)
    store, name = in_store(where)
    return store.load(name)


def open_manifest(where: str) -> Manifest:
    """What an adapter is, without its numbers and without torch."""
    if "://" not in where:
        return read_whole(where, read_manifest)
    store, name = in_store(where)
    return store.manifest(name)


def in_store(url: str) -> tuple[AdapterStore, str]:
    """The store that an adapter's URL names, and the adapter's name there."""
    from foreword.adapters.store import AdapterStore

    root, _, name = url.rstrip("/").rpartition("/")
    return AdapterStore(root), name


def open_base(adapter: Adapter, path: str, model: str | None, *, dtype: str = "auto", device: str | None = None) -> FrozenModel:
    """Load the model of --model, else the base that the adapter records; raises ModelError that says what to do."""
    if model is not None:
        return open_model(model, dtype=dtype, device=device, quantize=adapter.recipe.quantize)
    try:
        return open_model(adapter.base, dtype=dtype, device=device, quantize=adapter.recipe.quantize)
    except ModelError as error:
        raise ModelError(f"{str(error).removesuffix('.')}, or say with --model where the base of adapter '{path}' is now.") from error


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """A spinner while a folder is loaded, a plain line for a hub id, since a download draws bars of its own."""
    if Path(name).exists() or not sys.stderr.isatty():
        with spinner(f"loading {name}"):
            yield
        return
    screen(stderr=True).print(f"loading {name}")
    yield


@contextmanager
def spinner(what: str) -> Iterator[None]:
    """A message on a terminal, removed when the work is done."""
    console = screen(stderr=True)
    if not console.is_terminal or not is_main():
        yield
        return
    with console.status(what):
        yield
