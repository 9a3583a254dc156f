"""Loading: real folders, whole and broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from foreword.backbone.batch import collate
from foreword.backbone.loading.load_model import load
from foreword.errors import ModelError
from foreword.prompts.template import Row


def saved(folder: Path, name: str = "llama", **changes: object) -> Path:
    tiny.network(name, **changes).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def refusal(folder: Path | str, **options: str) -> str:
    with pytest.raises(ModelError) as caught:
        load(folder, **options)  # type: ignore[arg-type]
    return str(caught.value)


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt2"])
def test_a_saved_model_comes_back(name: str, tmp_path: Path) -> None:
    model, first = load(saved(tmp_path, name)), tiny.frozen(name)
    batch = collate([Row((1, 5, 6, 7))])
    assert torch.equal(model.forward(batch), first.forward(batch))
    assert (model.name, model.shape, model.tokenizer.encode("a joy")) == (str(tmp_path), first.shape, first.tokenizer.encode("a joy"))
    assert not any(p.requires_grad for p in model.network.parameters())


@pytest.mark.parametrize(
    ("name", "changes"),
    [("gpt2", {"attn_pdrop": 0.1, "resid_pdrop": 0.2, "embd_pdrop": 0.3}), ("opt", {"dropout": 0.1, "attention_dropout": 0.1})],
)
def test_dropout_is_left_out(name: str, changes: dict[str, float], tmp_path: Path) -> None:
    model = load(saved(tmp_path, name, **changes))
    assert [getattr(model.network.config, key) for key in changes] == [0.0] * len(changes)
    model.network.train()
    batch = collate([Row((1, 5, 6, 7))])
    assert torch.equal(model.forward(batch), model.forward(batch))


def test_tied_weights_are_not_missing(tmp_path: Path) -> None:
    model = load(saved(tmp_path, "gpt2", tie_word_embeddings=True))
    assert model.network.get_output_embeddings().weight is model.network.get_input_embeddings().weight


def test_an_unknown_dtype_or_device(tmp_path: Path) -> None:
    assert refusal(tmp_path, dtype="int4") == "dtype 'int4' is not known; choose one of auto, float32, bfloat16, float16."
    saved(tmp_path)
    message = refusal(tmp_path, device="abacus")
    assert message.startswith("device 'abacus' cannot be used (Expected one of cpu, cuda, ")
    assert message.endswith("); give cpu, or a device that this machine has.")


def test_a_folder_without_a_config(tmp_path: Path) -> None:
    message = refusal(tmp_path)
    assert message.startswith(f"model '{tmp_path}' cannot be read (")
    assert message.endswith("); give a hub id or a folder with config.json.")


def test_a_config_that_is_not_json_or_contradicts_itself(tmp_path: Path) -> None:
    saved(tmp_path)
    change_config(tmp_path, num_attention_heads=5)
    assert refusal(tmp_path).startswith(f"model '{tmp_path}' cannot be read (")
    (tmp_path / "config.json").write_text("{")
    assert refusal(tmp_path) == (
        f"model '{tmp_path}' cannot be read (It looks like the config file at '{tmp_path}/config.json' is not a valid JSON file); "
        "give a hub id or a folder with config.json."
    )


def test_a_folder_without_weights_or_tokenizer(tmp_path: Path) -> None:
    tiny.config("llama").save_pretrained(tmp_path)
    for _ in range(2):
        message = refusal(tmp_path)
        assert message.startswith(f"model '{tmp_path}' cannot be loaded (") and message.endswith("); check that the folder is complete.")
        tiny.tokenizer().save_pretrained(tmp_path)
    assert "no file named model.safetensors" in message


def test_half_a_file_of_weights(tmp_path: Path) -> None:
    weights = saved(tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    message = refusal(tmp_path)
    assert message.startswith(f"model '{tmp_path}' cannot be loaded (") and message.endswith("); check that the folder is complete.")


def test_a_layer_without_weights_is_never_made_up(tmp_path: Path) -> None:
    saved(tmp_path)
    change_config(tmp_path, num_hidden_layers=3, layer_types=None)
    assert refusal(tmp_path) == (
        f"model '{tmp_path}' has no weights that fit 'model.layers.2.input_layernorm.weight' (9 in all) of its config; "
        "download the checkpoint and config.json again."
    )


def test_weights_of_another_shape(tmp_path: Path) -> None:
    weights = saved(tmp_path) / "model.safetensors"
    tensors = {key: value.clone() for key, value in load_file(weights).items()}
    tensors["model.norm.weight"] = torch.zeros(3)
    weights.unlink()
    save_file(tensors, weights, metadata={"format": "pt"})
    assert refusal(tmp_path) == (
        f"model '{tmp_path}' has no weights that fit 'model.norm.weight' (1 in all) of its config; download the checkpoint and config.json again."
    )
