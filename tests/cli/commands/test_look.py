"""`foreword show`, `list` and `verify`: an adapter looked at without its model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from cli.given import QUICK, Foreword


def test_show_tells_what_an_adapter_is(foreword: Foreword, trained: Path, model: Path) -> None:
    result = foreword("show", trained)
    first, *rest = result.stdout.splitlines()
    found = dict((line.split(maxsplit=1)) for line in rest)
    assert first == str(trained)
    assert list(found) == [
        *("task", "method", "template", "base", "fingerprints", "numbers"),
        *("accuracy", "macro_f1", "loss", "seed", "steps", "plan", "data", "versions"),
    ]
    assert found["task"] == "classify: bad, good"
    assert found["method"] == "prompt-tuning, 4 virtual tokens in the text"
    assert found["template"] == "⟨bos⟩⟨4 soft⟩{text}↵Label: {answer}"
    assert found["base"] == f"{model} (llama)"
    assert found["numbers"].startswith("128 in 632 bytes, sha256 ")
    assert found["plan"] == "steps 4, batch_size 4, eval_every 2, tracker none"


def test_show_json_has_the_shared_keys_and_the_whole_manifest(foreword: Foreword, trained: Path, model: Path) -> None:
    found = json.loads(foreword("show", trained, "--json").stdout)
    manifest = json.loads((trained / "foreword.json").read_text("utf-8"))
    assert found.pop("manifest") == manifest
    assert found.pop("scores") == manifest["scores"]
    assert found == {
        "adapter": str(trained),
        "method": "prompt-tuning",
        "task": "classify",
        "model": str(model),
        "num_parameters": 128,
        "bytes": manifest["size"],
    }


def test_show_names_the_layers_of_a_prefix(foreword: Foreword, model: Path, reviews: Path, tmp_path: Path) -> None:
    train = ("train", reviews, "--model", model, *QUICK, "--method")
    assert foreword(*train, "p-tuning-v2", "--layers", "0", "--out", tmp_path / "a").exit_code == 0
    assert foreword(*train, "prefix-tuning", "--conversation", "whole", "--out", tmp_path / "b").exit_code == 0
    assert "method        p-tuning-v2, 4 virtual tokens as keys and values of layers 0\n" in foreword("show", tmp_path / "a").stdout
    shown = foreword("show", tmp_path / "b").stdout
    assert "method        prefix-tuning, 4 virtual tokens as keys and values of every layer, made by an MLP\n" in shown
    assert "template      ⟨bos⟩{text}↵Label: {answer}\n" in shown and "conversation  whole\n" in shown


def test_list_has_a_line_for_each_adapter(foreword: Foreword, trained: Path, writer: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "sentiment")
    shutil.copytree(writer, tmp_path / "writer")
    (tmp_path / "notes").mkdir()
    result = foreword("list", tmp_path)
    head, *lines = result.stdout.splitlines()
    assert head.split() == ["name", "task", "method", "base", "P", "size", "score"]
    assert [line.split()[:6] for line in lines] == [
        ["sentiment", "classify", "prompt-tuning", "tiny", "4", "632"],
        ["writer", "generate", "prompt-tuning", "tiny", "4", "632"],
    ]
    assert result.stderr == ""


def test_list_json(foreword: Foreword, trained: Path, model: Path, broken: Path) -> None:
    shutil.copytree(trained, broken.parent / "sentiment")
    (broken / "foreword.json").write_text("{}", "utf-8")
    result = foreword("list", broken.parent, "--json")
    bad, good = json.loads(result.stdout)["adapters"]
    assert bad == {
        "adapter": str(broken),
        "problem": f"adapter '{broken}' has format_version None, but this Foreword reads 1 to 2; update Foreword, or save the adapter again.",
    }
    assert set(good.pop("scores")) == {"accuracy", "macro_f1", "loss"}
    assert good == {
        "adapter": str(broken.parent / "sentiment"),
        "method": "prompt-tuning",
        "task": "classify",
        "model": str(model),
        "num_virtual_tokens": 4,
        "bytes": 632,
    }
    plain = foreword("list", broken.parent)
    assert plain.exit_code == 0
    assert plain.stderr == f"note: {bad['problem']}\n"


def test_list_of_nothing(foreword: Foreword, tmp_path: Path) -> None:
    result = foreword("list", tmp_path)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"no adapters in '{tmp_path}'.\n")
    missing = foreword("list", tmp_path / "none")
    assert missing.exit_code == 2
    assert missing.stderr == (
        f"foreword: error: store '{tmp_path / 'none'}' cannot be read (No such file or directory); give a folder of adapters.\n"
    )


def test_verify_passes_whole_adapters(foreword: Foreword, trained: Path) -> None:
    for path in (trained, trained.parent):
        result = foreword("verify", path)
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "1 adapter checked, 0 problems.\n")


def test_verify_names_every_problem(foreword: Foreword, trained: Path, broken: Path) -> None:
    missing = broken.parent / "none"
    result = foreword("verify", broken, missing, trained, "--json")
    problems = [
        f"adapter '{broken}' has 631 bytes in adapter_model.safetensors, but 632 were saved; copy it again or retrain.",
        f"store '{missing}' cannot be read (No such file or directory); give a folder of adapters.",
    ]
    assert result.exit_code == 2
    assert result.stderr == "".join(f"foreword: error: {problem}\n" for problem in problems)
    assert json.loads(result.stdout) == {
        "adapters": [
            {"adapter": str(broken), "problems": problems[:1]},
            {"adapter": str(missing), "problems": problems[1:]},
            {"adapter": str(trained), "problems": []},
        ]
    }


def test_verify_finds_changed_bytes_and_infinite_numbers(foreword: Foreword, trained: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(trained, changed)
    tensors = changed / "adapter_model.safetensors"
    data = bytearray(tensors.read_bytes())
    data[-4:] = b"\x00\x00\x80\x7f"
    tensors.write_bytes(data)
    result = foreword("verify", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"foreword: error: adapter '{changed}' has adapter_model.safetensors with sha256 ")
    assert result.stderr.endswith("was saved; copy it again or retrain.\n1 adapter checked, 1 problem.\n")


def test_verify_of_a_folder_without_adapters(foreword: Foreword, tmp_path: Path) -> None:
    result = foreword("verify", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"foreword: error: '{tmp_path}' holds no adapter; give an adapter's folder, or a folder of adapters.\n")


def test_adapters_behind_a_url_are_looked_at_and_used_alike(foreword: Foreword, trained: Path) -> None:
    from foreword.adapters.adapter import Adapter
    from foreword.adapters.store import AdapterStore

    AdapterStore("memory://looked/at").save("sentiment", Adapter.load(trained))
    url = "memory://looked/at/sentiment"
    assert foreword("list", "memory://looked/at").stdout.splitlines()[1].split()[0] == "sentiment"
    assert foreword("show", url).stdout.splitlines()[1:] == foreword("show", trained).stdout.splitlines()[1:]
    assert foreword("predict", url, "a joy", "--json").stdout == foreword("predict", trained, "a joy", "--json").stdout
    for path in (url, "memory://looked/at", "memory://looked"):
        result = foreword("verify", path)
        assert result.exit_code == (2 if path == "memory://looked" else 0)
    missing = foreword("show", "memory://looked/at/none")
    assert missing.exit_code == 2
    assert missing.stderr.startswith("foreword: error: adapter 'memory://looked/at/none' cannot be read (")
