"""Fingerprints: the same base in any precision, another base or tokenizer never."""

from __future__ import annotations

import re
from pathlib import Path

import tiny
import torch
from tokenizers import AddedToken

from foreword.backbone.fingerprint import fingerprint_model, fingerprint_tokenizer
from foreword.backbone.loading.load_model import load, shape_of


def saved(folder: Path) -> Path:
    tiny.network("llama").save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def test_the_precision_of_loading_does_not_matter(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    loaded = [load(folder, dtype=dtype) for dtype in ("auto", "float32", "bfloat16")]
    assert [model.dtype for model in loaded] == [torch.float32, torch.float32, torch.bfloat16]
    assert len({model.fingerprint for model in loaded}) == 1 and len({model.tokenizer_fingerprint for model in loaded}) == 1
    assert loaded[0].fingerprint == tiny.frozen("llama").fingerprint
    assert re.fullmatch("[0-9a-f]{16}", loaded[0].fingerprint) and re.fullmatch("[0-9a-f]{16}", loaded[0].tokenizer_fingerprint)


def test_one_changed_number_of_any_parameter_is_seen() -> None:
    network = tiny.network("llama")
    shape = shape_of(network.config.to_dict())
    first = fingerprint_model(network, shape)
    for parameter in network.parameters():
        with torch.no_grad():
            old = parameter.view(-1)[0].item()
            parameter.view(-1)[0] += 1.0
            assert fingerprint_model(network, shape) != first
            parameter.view(-1)[0] = old
    assert fingerprint_model(network, shape) == first


def test_the_same_weights_in_another_shape_are_another_model() -> None:
    network = tiny.network("mistral")
    shape = shape_of(network.config.to_dict())
    windowless = shape_of({**network.config.to_dict(), "sliding_window": None})
    assert fingerprint_model(network, shape) != fingerprint_model(network, windowless)


def test_another_family_is_another_model() -> None:
    assert len({tiny.frozen(name).fingerprint for name in tiny.TINY}) == len(tiny.TINY)


def test_tokenizers_differ_by_what_they_do() -> None:
    first = fingerprint_tokenizer(tiny.tokenizer())
    assert fingerprint_tokenizer(tiny.tokenizer.__wrapped__()) == first, "made again, it is the same"
    assert fingerprint_tokenizer(tiny.tokenizer(chat=True)) == first, "a chat format is the template's business"
    assert fingerprint_tokenizer(tiny.tokenizer(bos=False)) != first
    more = tiny.tokenizer.__wrapped__()
    more.add_tokens([AddedToken("<more>", special=True)])
    assert fingerprint_tokenizer(more) != first
