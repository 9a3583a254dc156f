"""The list of tasks: whatever one folder holds is the problem of its task, and the others are served as ever."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving.given import adapter

from foreword.adapters.store import AdapterStore
from foreword.errors import AdapterError
from foreword.serving.registry import Registry

MANIFEST, TENSORS = "foreword.json", "adapter_model.safetensors"


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prompts")
    for name in ("label", "prefix"):
        adapter("llama", name).save(folder / name)
    return folder


def scanned(folder: Path) -> Registry:
    registry = Registry(AdapterStore(folder))
    registry.scan()
    return registry


def task(**changes: Any) -> Callable[[Path], None]:
    """Change the task of a manifest; None removes a key."""

    def change(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["task"] = {key: value for key, value in (manifest["task"] | changes).items() if value is not None}
        (folder / MANIFEST).write_text(json.dumps(manifest))

    return change


def whole(text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / MANIFEST).write_text(text)

    return change


def huge(name: str) -> Callable[[Path], None]:
    """A file of a terabyte, of which the disk holds nothing."""
    return lambda folder: os.truncate(folder / name, 1 << 40)


def without_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def pipe(folder: Path) -> None:
    without_manifest(folder)
    os.mkfifo(folder / MANIFEST)


def loop(folder: Path) -> None:
    without_manifest(folder)
    (folder / MANIFEST).symlink_to(folder / MANIFEST)


def a_folder(folder: Path) -> None:
    without_manifest(folder)
    (folder / MANIFEST).mkdir()


ODD: dict[str, tuple[Callable[[Path], None], str]] = {
    "no labels": (task(labels=None), "has a task that cannot be read (TypeError: "),
    "labels of a wrong type": (task(labels=7), "has a task that cannot be read"),
    "labels that are null": (task(labels=[None, None]), "has a task that cannot be read"),
    "one label": (task(labels=["good"]), "has a task that cannot be read"),
    "a kind that is not known": (task(kind="magic"), "task kind 'magic' is not known"),
    "a template that cannot be parsed": (task(template="{"), "cannot be read"),
    "a key that is not known": (task(colour="red"), "task 'classify' has no key 'colour'"),
    "deep": (whole("[" * 100_000), "is not valid JSON"),
    "null": (whole("null"), "is not a JSON object"),
    "empty": (whole(""), "is not valid JSON"),
    "a huge manifest": (huge(MANIFEST), "of 1,099,511,627,776 bytes, but at most 67,108,864 are read"),
    "no manifest": (without_manifest, "without a foreword.json"),
    "a pipe": (pipe, "has a foreword.json that is not a file"),
    "a loop": (loop, "has a foreword.json that cannot be read"),
    "a folder for a file": (a_folder, "has a foreword.json that is not a file"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_folder_is_its_own_problem(tmp_path: Path, name: str) -> None:
    change, problem = ODD[name]
    for each in ("label", "prefix"):
        adapter("llama", each).save(tmp_path / each)
    change(tmp_path / "label")
    registry = scanned(tmp_path)
    assert registry.current("label") is None and problem in (registry.problem("label") or "")
    assert registry.current("prefix") is not None and registry.problem("prefix") is None
    with pytest.raises(AdapterError):
        registry.newest("label")
    adapter("llama", "label", 5).save(tmp_path / "new")
    (tmp_path / "label").rename(tmp_path / ".away")
    (tmp_path / "new").rename(tmp_path / "label")
    assert registry.scan() == ["label"] and registry.current("label") is not None and registry.problem("label") is None


@pytest.mark.parametrize("name", ODD)
def test_a_version_in_service_survives_an_odd_replacement(tmp_path: Path, name: str) -> None:
    adapter("llama", "label").save(tmp_path / "label")
    registry = scanned(tmp_path)
    before = registry.current("label")
    ODD[name][0](tmp_path / "label")
    registry.scan()
    assert before is not None and registry.current("label") == before and ODD[name][1] in (registry.problem("label") or "")


def test_a_huge_file_of_numbers_is_not_read(tmp_path: Path) -> None:
    adapter("llama", "prefix").save(tmp_path / "prefix")
    huge(TENSORS)(tmp_path / "prefix")
    with pytest.raises(AdapterError, match="has 1099511627776 bytes in adapter_model.safetensors, but 1656 were saved"):
        AdapterStore(tmp_path).load("prefix")


def test_what_is_beside_the_adapters_is_no_task(tmp_path: Path) -> None:
    adapter("llama", "prefix").save(tmp_path / "prefix")
    adapter("llama", "prefix").save(tmp_path / "copy")
    (tmp_path / "copy").rename(tmp_path / "a copy, with blanks")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "up").symlink_to(tmp_path)
    (tmp_path / "file").write_text("x")
    os.mkdir(os.fsencode(tmp_path) + b"/odd\xff")
    os.link(tmp_path / "prefix" / MANIFEST, os.fsencode(tmp_path) + b"/odd\xff/" + MANIFEST.encode())
    assert [name for name, _ in scanned(tmp_path)] == ["prefix"]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["classify", "choice", "{input}", "generate"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def paths(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a JSON value has values."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(*before, key) for key, _ in items] + [path for key, inner in items for path in paths(inner, (*before, key))]


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_no_manifest_stops_a_scan(prompts: Path, data: st.DataObject) -> None:
    """Any values in any places, values that are gone, and bytes cut or changed."""
    file = prompts / "label" / MANIFEST
    original = file.read_bytes()
    try:
        manifest = deepcopy(json.loads(original))
        for _ in range(data.draw(st.integers(1, 3))):
            path = data.draw(st.sampled_from(paths(manifest)))
            owner = manifest
            for key in path[:-1]:
                owner = owner[key]
            if data.draw(st.booleans()):
                owner[path[-1]] = data.draw(VALUES)
            else:
                del owner[path[-1]]
        changed = json.dumps(manifest).encode("utf-8", "surrogatepass")
        if data.draw(st.integers(0, 4)) == 0:
            at = data.draw(st.integers(0, len(changed)))
            changed = changed[:at] + data.draw(st.binary(max_size=3)) + changed[at + data.draw(st.integers(0, 5)) :]
        file.write_bytes(changed)
        registry = scanned(prompts)
        entry = registry.entry("label")
        assert (entry.version is None) != (entry.problem is None)
        assert entry.version is None or all(
            isinstance(each, str) for each in (*entry.version.columns, entry.version.kind, entry.version.base)
        )
        assert registry.current("prefix") is not None
    finally:
        file.write_bytes(original)
