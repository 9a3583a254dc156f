"""`foreword.json` is strict: what is unknown, missing, of another form or of a later version is refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adapters.making import adapter

from foreword.adapters.adapter import Adapter
from foreword.adapters.folder import TENSORS, read_whole
from foreword.adapters.manifest import Manifest, read_manifest
from foreword.errors import AdapterError

ROOT = Path(__file__).resolve().parents[2]
FORM = "adapter '{folder}' has a foreword.json whose '{key}' cannot be read ({why}); copy the adapter again or retrain."


def edited(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads((folder / "foreword.json").read_text())
    change(data)
    (folder / "foreword.json").write_text(json.dumps(data))


def refused(folder: Path) -> str:
    with pytest.raises(AdapterError) as error:
        Adapter.load(folder)
    return str(error.value)


def test_written_and_read_is_the_same(tmp_path: Path) -> None:
    folder = adapter(method="p-tuning-v2", layers=(1,)).save(tmp_path / "a")
    manifest = read_whole(folder, read_manifest)
    assert Manifest.from_json(manifest.to_json(), "here") == manifest
    assert manifest.to_json() == (folder / "foreword.json").read_bytes()
    assert (manifest.length, manifest.num_parameters) == (4, 4 * 64)


@pytest.mark.parametrize("version", [3, 0, "1", True, 1.0, None])
def test_another_format_version_is_refused(version: Any, tmp_path: Path) -> None:
    folder = adapter().save(tmp_path / "a")
    edited(folder, lambda data: data.update(format_version=version))
    assert refused(folder) == (
        f"adapter '{folder}' has format_version {version!r}, but this Foreword reads 1 to 2; update Foreword, or save the adapter again."
    )


KEYS = ["recipe", "shape", "tensors", "task", "base", "base_fingerprint", "tokenizer_fingerprint", "scores", "provenance", "sha256", "size"]


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_is_named(key: str, tmp_path: Path) -> None:
    folder = adapter().save(tmp_path / "a")
    edited(folder, lambda data: data.pop(key))
    assert refused(folder) == f"adapter '{folder}' has a foreword.json that lacks key '{key}'; copy the adapter again, or update Foreword."


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [None, 7.5, [], [[1]]])
def test_a_value_of_another_form_is_named(key: str, value: Any, tmp_path: Path) -> None:
    folder = adapter().save(tmp_path / "a")
    edited(folder, lambda data: data.update({key: value}))
    assert refused(folder) == FORM.format(folder=folder, key=key, why="it has the wrong form")


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    folder = adapter().save(tmp_path / "a")
    edited(folder, lambda data: data.update(head=1))
    assert (
        refused(folder)
        == f"adapter '{folder}' has a foreword.json that has the unknown key 'head'; copy the adapter again, or update Foreword."
    )


INIT = "initialiser 'seed' is not known; choose one of default, random, uniform, vocabulary, text, labels, mean, kv_of_text, adapter, file"
SPOILT: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    (
        "recipe",
        lambda data: data["recipe"]["prompt"].update(gate=1),
        "PromptSpec has no key 'gate'; known keys are dropout, init, layers, length, method, parts, reparam, site, window",
    ),
    (
        "recipe",
        lambda data: data["recipe"]["prompt"].update(length=0),
        "num_virtual_tokens is 0, but it must be a whole number of at least 1",
    ),
    ("recipe", lambda data: data["recipe"]["prompt"]["init"].update(kind="seed"), INIT),
    (
        "recipe",
        lambda data: data["recipe"]["prompt"].update(site="kv", layers=[5]),
        "layers [5] are not valid for a model of 2 layers; give distinct indices from 0 to 1",
    ),
    (
        "recipe",
        lambda data: data["recipe"]["prompt"].update(layers=[1, "x"], site="kv"),
        "layers [1, 'x'] are not whole numbers; give indices of layers",
    ),
    ("recipe", lambda data: data["recipe"]["prompt"].update(method=1), "it has the wrong form"),
    (
        "recipe",
        lambda data: data["recipe"]["prompt"].pop("site"),
        "a prompt's spec has no 'site'; it was written by another version or by hand",
    ),
    ("shape", lambda data: data["shape"].update(hidden="32"), "it has the wrong form"),
    ("shape", lambda data: data["shape"].update(depth=2), "it has the wrong form"),
    ("shape", lambda data: data["shape"]["kv"][0].update(heads=-4), "it has the wrong form"),
    ("shape", lambda data: data["shape"].update(kv=5), "it has the wrong form"),
    ("recipe", lambda data: data["recipe"].update(gate=1), "Recipe has no key 'gate'; it was written by another version or by hand"),
    (
        "recipe",
        lambda data: data["recipe"].update(lora={"rank": 4}),
        "LoraSpec has no key 'rank'; it was written by another version or by hand",
    ),
    ("tensors", lambda data: data["tensors"]["prompt_embeddings"].update(dtype="F8"), "it has the wrong form"),
    ("tensors", lambda data: data["tensors"]["prompt_embeddings"].update(shape=[4, -1]), "it has the wrong form"),
    ("task", lambda data: data["task"].pop("kind"), "it has the wrong form"),
    ("task", lambda data: data["task"].pop("bos"), "it has the wrong form"),
    ("task", lambda data: data["task"].update(bos="yes"), "it has the wrong form"),
    ("scores", lambda data: data["scores"]["accuracy"].update(value="high"), "it has the wrong form"),
    ("sha256", lambda data: data.update(sha256="abc"), "it has the wrong form"),
    ("size", lambda data: data.update(size=-1), "it has the wrong form"),
    ("size", lambda data: data.update(size=True), "it has the wrong form"),
]


@pytest.mark.parametrize(("key", "change", "why"), SPOILT)
def test_a_spoilt_value_is_named(key: str, change: Callable[[dict[str, Any]], Any], why: str, tmp_path: Path) -> None:
    folder = adapter().save(tmp_path / "a")
    edited(folder, change)
    assert refused(folder) == FORM.format(folder=folder, key=key, why=why)


@pytest.mark.parametrize("text", ["", "{", "NaN", "\xff", '{"format_version": 1, "size": Infinity}', "[" * 100_000])
def test_no_json_is_refused(text: str, tmp_path: Path) -> None:
    folder = adapter().save(tmp_path / "a")
    (folder / "foreword.json").write_bytes(text.encode("latin-1"))
    assert (
        refused(folder)
        == f"adapter '{folder}' has a foreword.json that is not valid JSON, perhaps truncated; copy the adapter again or retrain."
    )


def test_a_list_is_refused(tmp_path: Path) -> None:
    folder = adapter().save(tmp_path / "a")
    (folder / "foreword.json").write_text("[]")
    assert refused(folder) == f"adapter '{folder}' has a foreword.json that is not a JSON object; copy the adapter again or retrain."


def test_a_folder_without_one_says_what_it_is(tmp_path: Path) -> None:
    folder = adapter().save(tmp_path / "a")
    (folder / "foreword.json").unlink()
    assert refused(folder) == f"'{folder}' is an adapter of PEFT, without a foreword.json; import it with `foreword import`."
    assert refused(tmp_path) == f"'{tmp_path}' is not an adapter of Foreword, it has no foreword.json; give a folder that Foreword saved."


def test_reading_a_manifest_needs_the_standard_library_only(tmp_path: Path) -> None:
    folder = adapter().save(tmp_path / "a")
    code = f"""
import sys
before = set(sys.modules)
from foreword.adapters.folder import TENSORS, read_whole
from foreword.adapters.manifest import read_manifest
print(read_whole({str(folder)!r}, read_manifest).base)
print(sorted(name for name in set(sys.modules) - before if "." not in name and name not in sys.stdlib_module_names))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["tiny-llama", "['foreword']"]


def test_an_adapter_of_version_1_is_read_for_ever() -> None:
    golden = ROOT / "tests" / "formats" / "version-1"
    read = Adapter.load(golden)
    assert (read.flat * 8).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert (read.spec.site, read.spec.length, read.spec.layers, read.shape.kv[1].window) == ("kv", 2, "last:1", 8)
    assert read.task["labels"] == ["good", "schön"]
    assert read.scores == {"accuracy": {"value": 0.75, "stderr": 0.05, "n": 80}}
    assert read.files("here")[TENSORS] == (golden / TENSORS).read_bytes()  # the numbers stay; the manifest is written anew


def test_tensors_that_the_recipe_does_not_ask_for_are_refused(tmp_path: Path) -> None:
    folder = adapter().save(tmp_path / "a")
    edited(folder, lambda data: data["tensors"]["prompt_embeddings"].update(shape=[4, 31]))
    assert refused(folder) == (
        f"adapter '{folder}' has a foreword.json whose recipe needs 'prompt_embeddings' as F32 [4, 32], but whose tensors differ; "
        "copy the adapter again or retrain."
    )
