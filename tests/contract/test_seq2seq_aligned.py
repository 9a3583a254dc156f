"""Laws of encoder–decoders: aligned, predicting, parts. Outputs stand at the answer's tokens and equal attention worked out by hand."""

from __future__ import annotations

from itertools import combinations

import pytest
import tiny_seq2seq
import torch
from contract.given import TOLERANCE, distance
from contract.given_seq2seq import PARTS, by_hand, reference, row, row_for, sides, tokens
from contract.laws import law

from foreword.backbone.attention.builtin_observers import Recorder
from foreword.backbone.batch import collate
from foreword.prompts.template import Row
from foreword.prompts.tokens import EmbeddingPrefix, KVPrefix

PLACES = [(0, 0, 0, 0), (1, 4, 4, 7), (0, 0, 7, 7)]


@law("aligned", "encoder-decoder")
def test_outputs_stand_at_the_text_and_equal_attention_by_hand(method: str, name: str) -> None:
    read, model = tokens(name, method), tiny_seq2seq.frozen(name)
    bare = reference(name, row(6, 3), None)
    for places in PLACES if isinstance(read, EmbeddingPrefix) else [()]:
        one = row(6, 3, places)
        truth, source = reference(name, one, read), len(sides(one)[0])
        for training in (True, False):  # attention may take another way under gradients
            with torch.set_grad_enabled(training):
                ours = model.forward(collate([one]), read)[0]
            assert ours.shape == (len(one.ids), 320)
            assert distance(ours[source - 1 :], truth) < TOLERANCE
            assert torch.equal(ours[:source], ours[:1].expand(source, -1)), "the answer's first token is what follows a source"
        assert distance(truth, bare) > 0.01, "a prompt changes what is said, or this proves nothing"


@law("predicting", "encoder-decoder")
def test_label_positions_alone_equal_all_logits(method: str, name: str) -> None:
    model, read = tiny_seq2seq.frozen(name), tokens(name, method)
    rows = [row_for(read, 6, 3), row_for(read, 2, 5, 1), row_for(read, 4, 1, 2)]
    truth = torch.cat([reference(name, one, read)[:-1] for one in rows])
    for side in ("left", "right"):
        batch = collate(rows, side=side)
        assert distance(model.predicting(batch, read, batch.labels >= 0), truth) < TOLERANCE
    some = batch.labels >= 0
    some[1] &= some[1].cumsum(0) % 2 == 0
    kept = torch.tensor([True] * 3 + [False, True] * 2 + [False, True])
    assert distance(model.predicting(batch, read, some), truth[kept]) < TOLERANCE


@law("parts", "encoder-decoder")
def test_some_parts_equal_attention_by_hand(method: str, name: str) -> None:
    model, one = tiny_seq2seq.frozen(name), row(6, 3)
    for parts in (some for count in (1, 2) for some in combinations(PARTS, count)):
        read = tokens(name, method, parts=parts)
        assert isinstance(read, KVPrefix) and {model.shape.kv[slot].part for slot in read.keys} == set(parts)
        assert distance(model.forward(collate([one]), read)[0, 6:], reference(name, one, read)) < TOLERANCE


@pytest.mark.parametrize("name", tiny_seq2seq.SEQ2SEQ)
def test_the_last_layer_of_each_part(name: str) -> None:
    read, one, model = tokens(name, "prefix-tuning", layers="last:1"), row(6, 3), tiny_seq2seq.frozen(name)
    assert isinstance(read, KVPrefix) and len(read.keys) == 3
    assert distance(model.forward(collate([one]), read)[0, 6:], reference(name, one, read)) < TOLERANCE


@law("parts", "encoder-decoder")
def test_a_part_changes_what_it_should_and_nothing_else(method: str, name: str) -> None:
    """Keys that an attention itself makes: a prefix anywhere moves those of later layers of its stack, never those of layers before it."""
    model, batch = tiny_seq2seq.frozen(name), collate([row(6, 3)])

    def seen(part: str | None) -> list[torch.Tensor]:
        read = None if part is None else tokens(name, method, parts=(part,))
        recorder = Recorder()
        with torch.no_grad():
            model.forward(batch, read, [recorder])
        return [call.key[:, :, int((call.virtual >= 0).sum()) :] for slot in range(model.shape.num_layers) for call in recorder.calls[slot]]

    bare = seen(None)
    first = {part: [kv.part for kv in model.shape.kv].index(part) for part in PARTS}
    for part in PARTS:
        moved = {slot for slot, (one, other) in enumerate(zip(bare, seen(part), strict=True)) if not torch.equal(one, other)}
        parts = [model.shape.kv[slot].part for slot in range(len(bare))]
        later = {slot for slot in range(len(bare)) if parts[slot] == "encoder" and slot > first["encoder"]}
        across = {slot for slot in range(len(bare)) if parts[slot] == "cross"}
        behind = {slot for slot in range(len(bare)) if parts[slot] == "decoder" and slot > first["decoder"]}
        assert moved == {"encoder": later | across | behind, "decoder": behind, "cross": behind}[part]


def test_attention_by_hand_is_the_familys_own_where_there_is_no_prefix() -> None:
    for name in tiny_seq2seq.SEQ2SEQ:
        source, answer = sides(row(6, 3))
        given = {"input_ids": torch.tensor([source]), "decoder_input_ids": torch.tensor([answer])}
        stock = tiny_seq2seq.network(name)
        with torch.no_grad():
            assert distance(by_hand(name)(**given).logits, stock(**given).logits) < TOLERANCE


def test_a_row_without_an_answer_ends_where_its_answer_begins() -> None:
    model, one = tiny_seq2seq.frozen("bart"), row(6, 3)
    asked = Row(one.ids[:7])
    with torch.no_grad():
        assert distance(model.forward(collate([asked]))[0, -1], model.forward(collate([one]))[0, 6]) < TOLERANCE
