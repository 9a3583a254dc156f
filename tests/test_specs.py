"""Specs: strict data, in and out of JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foreword.errors import UsageError
from foreword.methods import METHODS, recipe
from foreword.shape import KVShape, ModelShape
from foreword.specs import INIT_KINDS, Init, PromptSpec, Reparam

ROOT = Path(__file__).resolve().parents[1]
SHAPE = ModelShape("gemma3_text", 64, 48, 500, 256, (KVShape(2, 8, 16), KVShape(2, 8), KVShape(1, 4), KVShape(1, 4)))


def kv(**changes: Any) -> PromptSpec:
    return PromptSpec(**{"method": "p-tuning-v2", "length": 5, "site": "kv", **changes})


@pytest.mark.parametrize("spec", [*(recipe(name, length=7) for name in METHODS), kv(layers=(2, 0), window="model", dropout=0.1)], ids=repr)
def test_json_round_trip(spec: PromptSpec) -> None:
    data = json.loads(json.dumps(spec.to_dict()))
    assert PromptSpec.from_dict(data) == spec
    assert PromptSpec.from_dict(data).to_dict() == spec.to_dict()


@pytest.mark.parametrize("init", [Init(), Init("text", "Is it good?"), Init("file", path="a.safetensors", scale=0.5)], ids=repr)
def test_initialisers_go_through_json_too(init: Init) -> None:
    spec = recipe("prompt-tuning", init=init)
    assert PromptSpec.from_dict(json.loads(json.dumps(spec.to_dict()))).init == init


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (None, "PromptSpec has no key 'lenght'; known keys are dropout, init, layers, length, method, parts, reparam, site, window."),
        ("reparam", "Reparam has no key 'lenght'; known keys are hidden, kind, layers."),
        ("init", "Init has no key 'lenght'; known keys are kind, path, scale, text."),
    ],
)
def test_unknown_keys_are_named(place: str | None, message: str) -> None:
    data = recipe("p-tuning").to_dict()
    (data if place is None else data[place])["lenght"] = 3
    with pytest.raises(UsageError) as caught:
        PromptSpec.from_dict(data)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kv(length=0), "num_virtual_tokens is 0, but it must be a whole number of at least 1."),
        (lambda: kv(length=True), "num_virtual_tokens is True, but it must be a whole number of at least 1."),
        (lambda: kv(dropout=1.0), "dropout is 1.0, but it must be at least 0 and below 1; 0.1 is common."),
        (lambda: kv(dropout=-0.1), "dropout is -0.1, but it must be at least 0 and below 1; 0.1 is common."),
        (
            lambda: kv(site="input", layers="last:2"),
            "layers 'last:2' do not apply to the input site; leave layers out, or use a method of the kv site.",
        ),
        (lambda: Reparam("mlp", 0), "the hidden width of a re-parameterisation is 0, but it must be a whole number of at least 1."),
        (lambda: Reparam("lstm", 8, -1), "the number of LSTM layers is -1, but it must be a whole number of at least 1."),
        (lambda: Init("zeros"), f"initialiser 'zeros' is not known; choose one of {', '.join(INIT_KINDS)}."),
        (lambda: Init("file"), "initialiser 'file' needs a path; give one, for example --init file:PATH."),
        (lambda: Init("text", path="x"), "initialiser 'text' takes no path, but got 'x'; use 'adapter' or 'file' for a path."),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make()
    assert str(caught.value) == message


# What the type checker of the tests would stop first: values as they may come from JSON.
FROM_JSON = [
    ({"length": 2.5}, "num_virtual_tokens is 2.5, but it must be a whole number of at least 1."),
    ({"length": "20"}, "num_virtual_tokens is '20', but it must be a whole number of at least 1."),
    ({"site": "middle"}, "site 'middle' is not known; choose one of input, kv."),
    ({"window": "open"}, "window 'open' is not known; choose one of model, pinned."),
    ({"reparam": {"kind": "gru"}}, "re-parameterisation 'gru' is not known; choose one of direct, mlp, lstm."),
    ({"layers": [1, 3]}, "(1, 3)"),
]


def test_values_of_another_type_are_refused_without_a_type_checker() -> None:
    code = f"""
from foreword.errors import UsageError
from foreword.specs import PromptSpec
for change, _ in {FROM_JSON!r}:
    try:
        print(PromptSpec.from_dict({{"method": "p-tuning-v2", "length": 5, "site": "kv", **change}}).layers)
    except UsageError as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert run.stdout.splitlines() == [message for _, message in FROM_JSON]


@pytest.mark.parametrize(("layers", "chosen"), [("all", (0, 1, 2, 3)), ("last:1", (3,)), ("last:4", (0, 1, 2, 3)), ((2, 0), (0, 2))])
def test_layers(layers: Any, chosen: tuple[int, ...]) -> None:
    spec = kv(layers=layers)
    assert spec.chosen_layers(SHAPE) == chosen
    assert spec.kv_shapes(SHAPE) == tuple(SHAPE.kv[i] for i in chosen)
    assert spec.width(SHAPE) == sum(SHAPE.kv[i].width for i in chosen)
    assert spec.parameters(SHAPE) == 5 * spec.width(SHAPE)


@pytest.mark.parametrize("layers", ["last:0", "last:5", "last:x", "last:²", "last:-1", "first:2", "half", ""])
def test_layers_in_words_that_cannot_be(layers: str) -> None:
    with pytest.raises(UsageError) as caught:
        kv(layers=layers).chosen_layers(SHAPE)
    assert str(caught.value) == f"layers '{layers}' are not valid for a model of 4 layers; give 'all', 'last:N' or indices below 4."


@pytest.mark.parametrize("layers", [(0, 4), (-1,), (1, 1), ()])
def test_layers_by_index_that_cannot_be(layers: tuple[int, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        kv(layers=layers).chosen_layers(SHAPE)
    assert str(caught.value) == f"layers {list(layers)} are not valid for a model of 4 layers; give distinct indices from 0 to 3."


def test_widths_of_both_sites() -> None:
    assert PromptSpec("prompt-tuning", 5, "input").width(SHAPE) == 48, "the width of an embedding, which a model may project"
    assert kv().width(SHAPE) == 32 + 32 + 8 + 8
    assert kv().parameters(SHAPE) == 400


def test_a_spec_without_a_site_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        PromptSpec.from_dict({"method": "x", "length": 3})
    assert str(caught.value) == "a prompt's spec has no 'site'; it was written by another version or by hand."
