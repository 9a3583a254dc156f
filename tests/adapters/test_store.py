"""A store keeps adapters by name, shows broken ones instead of failing at them, and works on any fsspec file system."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import torch
from adapters.making import SCORES, adapter

from foreword.adapters.folder import FILES
from foreword.adapters.store import AdapterStore, Card
from foreword.errors import AdapterError, UsageError

ROOT = Path(__file__).resolve().parents[2]
REMOTE = "memory://adapters/of/mine"


@pytest.fixture
def remote() -> Iterator[AdapterStore]:
    """An empty store on fsspec's file system in memory, which all tests of a process share."""
    store = AdapterStore(REMOTE)
    yield store
    store.files.rm("/adapters", recursive=True)


def test_a_card_says_what_an_adapter_is(tmp_path: Path) -> None:
    store = AdapterStore(tmp_path)
    made = adapter(method="prefix-tuning")
    assert store.save("tone", made) == str(tmp_path / "tone")
    size = (tmp_path / "tone" / "adapter_model.safetensors").stat().st_size
    assert store.list() == [Card("tone", "prefix-tuning", "classify", "tiny-llama", 4, size, SCORES)]
    assert torch.equal(store.load("tone").flat, made.flat)
    assert store.path("tone") == f"{tmp_path}/tone"
    assert store.verify("tone") == []


def test_a_list_is_sorted_and_knows_adapters_from_other_folders(tmp_path: Path) -> None:
    for name in ("b", "a", "C"):
        adapter().save(tmp_path / name)
    for other in ("a.run", "empty", ".hidden"):
        shutil.copytree(tmp_path / "a", tmp_path / other) if other != "empty" else (tmp_path / other).mkdir()
    (tmp_path / "foreword.json").write_text("a file beside them")
    assert AdapterStore(tmp_path).names() == ["C", "a", "b"]


def test_a_broken_adapter_is_shown_with_its_problem(tmp_path: Path) -> None:
    for name in ("cut", "lost", "peft", "whole"):
        adapter().save(tmp_path / name)
    (tmp_path / "cut" / "foreword.json").write_text("{")
    (tmp_path / "lost" / "adapter_model.safetensors").unlink()
    (tmp_path / "peft" / "foreword.json").unlink()
    shutil.copytree(tmp_path / "whole", tmp_path / "two words")
    found = {card.name: card.problem for card in AdapterStore(tmp_path).list()}
    assert found == {
        "cut": f"adapter '{tmp_path}/cut' has a foreword.json that is not valid JSON, perhaps truncated; copy the adapter again or retrain.",
        "lost": f"adapter '{tmp_path}/lost' has no adapter_model.safetensors; copy it again or retrain.",
        "peft": f"'{tmp_path}/peft' is an adapter of PEFT, without a foreword.json; import it with `foreword import`.",
        "two words": (
            "adapter name 'two words' cannot be used; give at most 100 letters (a to z), digits, '.', '_' or '-', "
            "beginning with a letter or digit, not ending in '.' or '.run', and no device name such as 'con'."
        ),
        "whole": None,
    }


def test_an_adapter_that_a_kill_left_under_its_second_name_is_found(tmp_path: Path) -> None:
    store, made = AdapterStore(tmp_path), adapter()
    store.save("a", made)
    (tmp_path / "a").rename(tmp_path / ".a.old")
    assert [card.problem for card in store.list()] == [None]
    assert torch.equal(store.load("a").flat, made.flat)
    with pytest.raises(AdapterError):
        store.save("a", made)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_verify_reads_every_number(tmp_path: Path) -> None:
    folder = adapter().save(tmp_path / "a")
    data = bytearray((folder / "adapter_model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "adapter_model.safetensors").write_bytes(data)
    (folder / "adapter_config.json").unlink()
    store = AdapterStore(tmp_path)
    assert store.card("a").problem is None
    first, second = store.verify("a")
    assert first.startswith(f"adapter '{folder}' has adapter_model.safetensors with sha256 ")
    assert second == f"adapter '{folder}' has no adapter_config.json, so PEFT cannot read it; save it again."
    assert store.verify("b") == [f"adapter '{tmp_path}/b' does not exist; give the folder that holds its foreword.json."]


def test_a_store_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError) as error:
        AdapterStore(tmp_path / "none").list()
    assert str(error.value) == f"store '{tmp_path}/none' cannot be read (No such file or directory); give a folder of adapters."


def test_a_protocol_that_is_not_known_is_refused() -> None:
    with pytest.raises(UsageError) as error:
        AdapterStore("nowhere://x")
    assert str(error.value) == (
        "'nowhere://x' cannot be opened as a store (Protocol not known: nowhere); give a folder, or install what its protocol needs."
    )


@pytest.mark.parametrize("name", ["../a", "/a", ""])
def test_a_name_cannot_leave_the_store(name: str, tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "inner")
    adapter().save(tmp_path / "a")
    for use in (store.path, store.load, lambda name: store.save(name, adapter())):
        with pytest.raises(AdapterError, match="^adapter name '.*' cannot be used; "):
            use(name)
    assert (store.card(name).problem or "").startswith(f"adapter name {name!r} cannot be used; ")
    assert store.verify(name) == [store.card(name).problem]


def test_a_remote_store_does_the_same(remote: AdapterStore) -> None:
    made, other = adapter(seed=1), adapter(seed=2)
    assert remote.list() == []
    assert remote.save("a", made) == f"{REMOTE}/a"
    assert [(card.name, card.method, card.problem) for card in remote.list()] == [("a", "prompt-tuning", None)]
    assert torch.equal(remote.load("a").flat, made.flat)
    assert remote.verify("a") == []
    with pytest.raises(AdapterError) as error:
        remote.save("a", other)
    assert (
        str(error.value) == f"'{REMOTE}/a' already holds an adapter; choose another name, or give --force (overwrite=True) to replace it."
    )
    remote.save("a", other, overwrite=True)
    assert torch.equal(remote.load("a").flat, other.flat)


def test_a_remote_adapter_that_is_missing_or_broken_is_told(remote: AdapterStore) -> None:
    remote.save("a", adapter())
    assert remote.card("b").problem == f"adapter '{REMOTE}/b' cannot be read (/adapters/of/mine/b); check the name, or list the store."
    remote.files.rm_file("/adapters/of/mine/a/foreword.json")
    assert [card.problem for card in remote.list()] == [
        f"'{REMOTE}/a' is an adapter of PEFT, without a foreword.json; import it with `foreword import`."
    ]


def test_an_upload_that_stops_anywhere_never_leaves_a_mixture(remote: AdapterStore, monkeypatch: pytest.MonkeyPatch) -> None:
    made, other, pipe = adapter(seed=1), adapter(seed=2), type(remote.files).pipe_file
    for stop in range(len(FILES)):
        remote.save("a", made, overwrite=True)
        left = stop

        def failing(self: fsspec.AbstractFileSystem, path: str, value: bytes, **kwargs: object) -> None:
            nonlocal left
            if left == 0:
                raise ConnectionError("connection reset")
            left -= 1
            pipe(self, path, value, **kwargs)

        with monkeypatch.context() as patched:
            patched.setattr(type(remote.files), "pipe_file", failing)
            with pytest.raises(AdapterError) as error:
                remote.save("a", other, overwrite=True)
        assert str(error.value) == f"adapter '{REMOTE}/a' could not be uploaded (connection reset); try again."
        assert remote.card("a").problem is not None
        with pytest.raises(AdapterError):
            remote.load("a")


def test_listing_and_verifying_need_no_torch(tmp_path: Path) -> None:
    adapter().save(tmp_path / "a")
    code = f"""
import sys
from foreword.adapters.store import AdapterStore
store = AdapterStore({str(tmp_path)!r})
heavy = {{"torch", "transformers", "numpy", "safetensors"}}
print([card.name for card in store.list()], sorted(heavy & set(sys.modules)))
print(store.verify("a"), sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["['a'] []", "[] ['numpy', 'safetensors']"], "only what reads numbers needs these two"
