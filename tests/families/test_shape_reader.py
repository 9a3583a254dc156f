"""ModelShape: read from configs as transformers writes them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from foreword.errors import ModelError
from foreword.families.shape_reader import read_shape
from foreword.shape import KVShape, ModelShape

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "vocab_size": 500,
    "max_position_embeddings": 256,
}


def test_one_head_of_keys_for_each_head_of_queries() -> None:
    shape = read_shape(LLAMA)
    assert shape == ModelShape("llama", 64, 64, 500, 256, (KVShape(8, 8),) * 3)
    assert shape.num_layers == 3 and not shape.windowed
    assert [layer.width for layer in shape.kv] == [128] * 3


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"num_key_value_heads": 2}, KVShape(2, 8)),
        ({"num_key_value_heads": None}, KVShape(8, 8)),
        ({"num_key_value_heads": 2, "head_dim": 32}, KVShape(2, 32)),
        ({"head_dim": None}, KVShape(8, 8)),
        ({"multi_query": True}, KVShape(1, 8)),
        ({"multi_query": False}, KVShape(8, 8)),
    ],
)
def test_heads(change: dict[str, Any], expected: KVShape) -> None:
    assert set(read_shape({**LLAMA, **change}).kv) == {expected}


@pytest.mark.parametrize(
    ("change", "windows"),
    [
        ({"sliding_window": 16}, (16, 16, 16)),
        ({"sliding_window": None}, (None, None, None)),
        ({"sliding_window": 16, "use_sliding_window": False}, (None, None, None)),
        ({"sliding_window": 16, "use_sliding_window": True}, (16, 16, 16)),
        ({"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}, (16, None, 16)),
        ({"sliding_window": None, "layer_types": ["full_attention"] * 3}, (None, None, None)),
    ],
)
def test_windows(change: dict[str, Any], windows: tuple[int | None, ...]) -> None:
    shape = read_shape({**LLAMA, **change})
    assert tuple(layer.window for layer in shape.kv) == windows
    assert shape.windowed == any(windows)


def test_the_names_of_gpt2() -> None:
    config = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "vocab_size": 99}
    assert read_shape(config) == ModelShape("gpt2", 32, 32, 99, 128, (KVShape(4, 8),) * 2)


def test_opt_projects_its_embeddings() -> None:
    shape = read_shape({**LLAMA, "model_type": "opt", "word_embed_proj_dim": 16})
    assert (shape.hidden, shape.embedding, shape.states) == (64, 16, 16), "and its last states back again"
    assert read_shape({**LLAMA, "model_type": "electra", "embedding_size": 16}).states == 64


def test_a_model_without_a_limit_has_more_positions_than_anyone_needs() -> None:
    config = {key: value for key, value in LLAMA.items() if key != "max_position_embeddings"}
    assert read_shape(config).positions == 1 << 30


@pytest.mark.parametrize("missing", ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"])
def test_a_missing_integer_is_named(missing: str) -> None:
    with pytest.raises(ModelError) as caught:
        read_shape({key: value for key, value in LLAMA.items() if key != missing})
    assert str(caught.value) == f"the config of model type 'llama' has no {missing}; give the config of a single text transformer."


def test_json_round_trip_and_digest() -> None:
    shape = read_shape({**LLAMA, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention", "full_attention"]})
    again = ModelShape.from_dict(json.loads(json.dumps(shape.to_dict())))
    assert again == shape and again.digest() == shape.digest() and len(shape.digest()) == 16
    assert read_shape(LLAMA).digest() == "f14781af18c6c8dd", "the same on every machine, and in every release: adapters are bound to it"
    assert read_shape({**LLAMA, "num_key_value_heads": 4}).digest() != read_shape(LLAMA).digest()
