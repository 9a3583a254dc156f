"""Laws of encoders: aligned, positions, types, windows. States stand at the caller's tokens and equal stock transformers'."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny_encoders
import torch
from contract.given import TOLERANCE, distance, prompt, spec
from contract.given_encoders import placed, projections, reference, stock, text, tokens
from contract.laws import law
from torch import nn

from foreword.backbone.batch import collate
from foreword.errors import ModelError
from foreword.families.registry import check_site
from foreword.prompts.tokens import EmbeddingPrefix, KVPrefix

LENGTH = 10
PLACEMENTS = {"behind [CLS]": (1, 1, 1, 1), "leading": (0, 0, 0, 0), "scattered": (1, 4, 4, 7), "both ends": (0, 0, 10, 10)}


@law("aligned", "encoder")
def test_states_stand_at_the_text_and_equal_transformers(method: str, name: str) -> None:
    model, read, row = tiny_encoders.frozen(name), tokens(name, method), text(name, LENGTH)
    bare = reference(name, row, None)
    assert distance(model.hidden(collate([row]))[0], bare) < 1e-5
    for places in PLACEMENTS.values() if isinstance(read, EmbeddingPrefix) else [()]:
        full = placed(row, read, places)
        truth = reference(name, full, read)
        if isinstance(read, EmbeddingPrefix):
            truth = truth[[index + sum(place <= index for place in places) for index in range(LENGTH)]]
        for training in (True, False):  # attention may take another way under gradients
            with torch.set_grad_enabled(training):
                ours = model.hidden(collate([full]), read)
            assert ours.shape == (1, LENGTH, 32)
            assert distance(ours[0], truth) < TOLERANCE
        assert distance(ours[0], bare) > 0.01, "a prompt moves what reads it"


@law("positions", "encoder")
def test_every_position_can_be_used(method: str, name: str) -> None:
    """A prefix may even be longer than the text may be."""
    kv = spec(method).site == "kv"
    read = tokens(name, method, 60 if kv else 7)
    row = placed(text(name, tiny_encoders.POSITIONS - (0 if kv else 7)), read)
    assert tiny_encoders.frozen(name).shape.positions == tiny_encoders.POSITIONS
    ours, truth = tiny_encoders.frozen(name).hidden(collate([row]), read)[0], reference(name, row, read)
    assert distance(ours, truth if kv else torch.cat([truth[:1], truth[8:]])) < TOLERANCE


@law("types", "encoder")
def test_token_types_are_kept(method: str, name: str) -> None:
    model, read, row = tiny_encoders.frozen(name), tokens(name, method), placed(text(name, LENGTH), tokens(name, method))
    plain = replace(row, types=())
    rows = [row, plain, replace(row, ids=row.ids[:6], types=row.types[:6])]
    for side in ("left", "right"):
        batch = collate(rows, side=side)
        states = model.hidden(batch, read)
        for b, one in enumerate(rows):
            truth = reference(name, one if one.types else replace(one, types=(0,) * LENGTH), read)
            truth = torch.cat([truth[:1], truth[5:]]) if isinstance(read, EmbeddingPrefix) else truth
            assert distance(states[b][batch.mask[b]], truth) < TOLERANCE
        assert distance(states[0], states[1]) > 0.01, "types must matter, or this proves nothing"


@law("windows", "encoder")
def test_a_prefix_is_seen_from_far_beyond_the_window(method: str, name: str) -> None:
    """One sliding layer alone has a prefix, and nothing behind it looks far: the last token still feels it."""
    model, read = tiny_encoders.frozen(name), tokens(name, method)
    assert isinstance(read, KVPrefix)
    row = text(name, tiny_encoders.POSITIONS)
    assert distance(model.hidden(collate([row]), read)[0], reference(name, row, read)) < TOLERANCE
    layer = max(i for i, kv in enumerate(model.shape.kv) if kv.window is not None)
    one, other = (KVPrefix({layer: sign * read.keys[layer]}, {layer: sign * read.values[layer]}, "pinned") for sign in (1, -1))
    batch = collate([row])
    assert (model.hidden(batch, one) - model.hidden(batch, other))[0].abs().amax(1).min() > 1e-3


@law("windows", "encoder")
def test_a_prefix_cannot_fade(method: str, name: str) -> None:
    model = tiny_encoders.frozen(name)
    message = (
        "window 'model' is not supported for ModernBERT, because a prefix has no position there that could leave the sliding window; "
        "use window 'pinned'."
    )
    with pytest.raises(ModelError) as caught:
        check_site(spec(method, window="model"), model.shape)
    assert str(caught.value) == message
    with torch.no_grad():
        read = prompt(model, spec(method, window="model"))()
    with pytest.raises(ModelError) as caught:
        model.hidden(collate([text(name, LENGTH)]), read)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", tiny_encoders.TINY)
def test_first_keys_and_values_are_the_models_own(name: str) -> None:
    """Those of [CLS] and of word embeddings behind it; where positions turn keys, as turned ones."""
    model, network = tiny_encoders.frozen(name), stock(name)
    ids = text(name, 7).ids[:6]
    flat = model.keys_values(model.embed(ids[1:]), opening=True)
    assert flat.shape == (6, sum(kv.width for kv in model.shape.kv))
    assert torch.equal(flat[1:], model.keys_values(model.embed(ids[1:])))
    seen: dict[object, torch.Tensor] = {}

    def note(module: nn.Module, _: object, out: torch.Tensor) -> None:
        """The first of a module's calls (ALBERT's layers share theirs) that is about tokens."""
        if out.shape[1] == 6:
            seen.setdefault(module, out)

    hooks = [linear.register_forward_hook(note) for linear in {linear for pair in projections(network) for linear in pair}]
    try:
        with torch.no_grad():
            network(torch.tensor([ids]))
    finally:
        for hook in hooks:
            hook.remove()
    begin = 0
    for (key, value), kv in zip(projections(network), model.shape.kv, strict=True):
        keys, values = flat[:, begin : begin + kv.width].chunk(2, 1)
        begin += kv.width
        if key is value:
            assert distance(values, seen[value][0].chunk(3, 1)[2]) < 1e-5
            assert distance(keys.norm(dim=1), seen[key][0].chunk(3, 1)[1].norm(dim=1)) < 1e-5
        else:
            assert distance(keys, seen[key][0]) < 1e-5 and distance(values, seen[value][0]) < 1e-5


@pytest.mark.parametrize("name", tiny_encoders.TINY)
def test_more_first_values_than_positions_are_read_in_pieces(name: str) -> None:
    model = tiny_encoders.frozen(name)
    embeds = model.embed(text(name, 100).ids)
    flat = model.keys_values(embeds)
    assert flat.shape[0] == 100 and distance(flat[:44], model.keys_values(embeds[:44])) < 1e-5
    assert torch.equal(model.keys_values(embeds, opening=True)[1:], flat)
