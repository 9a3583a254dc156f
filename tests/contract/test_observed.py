"""Laws: observed, and masked. Observers see what every attention does and change nothing; a masked virtual token is an absent one."""

from __future__ import annotations

import torch
from contract.given import TOLERANCE, distance
from contract.given_observed import P, batch_of, model_of, outputs, prompt_of, shifted
from contract.laws import law
from torch import Tensor

from foreword.backbone.attention.attention_observer import AttentionCall
from foreword.backbone.attention.builtin_observers import AttentionToPrompt, MaskVirtualTokens, Recorder
from foreword.backbone.batch import Batch
from foreword.prompts.tokens import KVPrefix, VirtualTokens

SINKS = {"gpt_oss"}  # a share of their attention goes to no key


def picked(side: Tensor, columns: Tensor, dim: int) -> Tensor:
    """The columns of one row."""
    return side.index_select(dim, columns[columns >= 0])


def check_weights(name: str, call: AttentionCall) -> None:
    """Weights are probabilities, and those with which the attention mixed its values."""
    values = call.value.repeat_interleave(call.query.shape[1] // call.value.shape[1], 1)
    mixed = torch.matmul(call.weights, values).transpose(1, 2)
    for b, columns in enumerate(call.tokens):
        sums = picked(call.weights[b], columns, 1).sum(2)
        assert bool((sums < 1).all()) if name in SINKS else distance(sums, torch.ones_like(sums)) < 1e-5
        assert distance(picked(mixed[b], columns, 0), picked(call.output[b], columns, 0)) < TOLERANCE


def check_columns(name: str, batch: Batch, read: VirtualTokens, call: AttentionCall) -> None:
    """Queries of the caller's tokens and keys of virtual tokens are where they are said to be."""
    model = model_of(name)
    inputs = model.prepare(batch, read).inputs
    side = "decoder_input_ids" if call.part in ("decoder", "cross") else "input_ids"
    for b, columns in enumerate(call.tokens):
        kept = columns >= 0
        if side in inputs:
            assert torch.equal(inputs[side][b, columns[kept]], batch.ids[b, kept])
        else:
            assert torch.equal(inputs["inputs_embeds"][b, columns[kept]], model.embeddings.table(batch.ids[b, kept]))
        if isinstance(read, KVPrefix):
            assert call.virtual[b].tolist() == list(range(P))
            assert torch.equal(call.key[b][:, call.virtual[b]], read.keys[call.slot])
            assert torch.equal(call.value[b][:, call.virtual[b]], read.values[call.slot])
        elif call.part == "decoder":
            assert bool((call.virtual == -1).all())
        else:
            assert torch.equal(inputs["inputs_embeds"][b, call.virtual[b]], read.vectors)


def check(method: str, name: str) -> None:
    read = prompt_of(name, method)
    batch, model = batch_of(name, [read] * 3), model_of(name)
    recorder, mean, heads, alone = Recorder(), AttentionToPrompt(), AttentionToPrompt(per_head=True), AttentionToPrompt()
    plain = outputs(name, batch, read)
    assert torch.equal(outputs(name, batch, read, [recorder, mean, heads]), plain), "who only looks changes nothing"
    outputs(name, batch, read, [alone])
    assert sorted(recorder.calls) == sorted(mean.shares) == list(range(model.shape.num_layers))
    read_by = {part: torch.zeros_like(batch.mask) for part in model.shape.parts}
    for slot, calls in recorder.calls.items():
        for call, shares, each, again in zip(calls, mean.shares[slot], heads.shares[slot], alone.shares[slot], strict=True):
            assert (call.slot, call.part) == (slot, model.shape.kv[slot].part)
            check_weights(name, call)
            check_columns(name, batch, read, call)
            read_by[call.part] |= call.tokens >= 0
            assert torch.equal(shares, again), "together observers see what each sees alone"
            assert shares.shape == (*batch.ids.shape, P) and torch.equal(each.mean(1), shares)
            for b, t, j in ((b, t, j) for b in range(3) for t in range(batch.ids.shape[1]) for j in (0, P - 1)):
                query, key = int(call.tokens[b, t]), int(call.virtual[b, j])
                expected = call.weights[b, :, query, key] if min(query, key) >= 0 else torch.zeros(each.shape[1])
                assert torch.equal(each[b, :, t, j], expected)
    check_parts(batch, read_by)


def check_parts(batch: Batch, read_by: dict[str, Tensor]) -> None:
    """Every real token is read by one stack: answers by the decoder, everything else by the encoder."""
    answer = batch.labels >= 0
    assert all(torch.equal(seen, {"self": batch.mask, "encoder": batch.mask & ~answer}.get(part, answer)) for part, seen in read_by.items())


@law("observed")
def test_observers_of_causal_models(method: str, name: str) -> None:
    check(method, name)


@law("observed", "encoder")
def test_observers_of_encoders(method: str, name: str) -> None:
    check(method, name)


@law("observed", "encoder-decoder")
def test_observers_of_encoder_decoders(method: str, name: str) -> None:
    check(method, name)


def without(read: KVPrefix, tokens: set[int], layers: set[int]) -> KVPrefix | None:
    """The prefix without these tokens, which `layers` all have."""
    kept = [j for j in range(P) if j not in tokens]
    if not kept:
        return None
    sides = [{slot: side[:, kept] for slot, side in part.items() if slot in layers} for part in (read.keys, read.values)]
    return KVPrefix(sides[0], sides[1], read.window)


def check_masked(method: str, name: str) -> None:
    read = prompt_of(name, method)
    assert isinstance(read, KVPrefix)
    batch, slots = batch_of(name, [None] * 3), set(read.keys)
    for off in ({0}, {2}, {1, P - 1}, set(range(P))):
        recorder = Recorder()
        masked = outputs(name, batch, read, [MaskVirtualTokens(off), recorder])
        assert distance(masked, shifted(name, batch, without(read, off, slots), len(off))) < TOLERANCE
        for call in (call for calls in recorder.calls.values() for call in calls):
            assert not any(bool(picked(call.weights[b], columns, 1)[:, :, sorted(off)].any()) for b, columns in enumerate(call.tokens))
        assert torch.equal(outputs(name, batch, read, [MaskVirtualTokens({j}) for j in off]), masked), "several masks add up"
    first = outputs(name, batch, read, [MaskVirtualTokens(range(P), layers=[0])])
    assert distance(first, outputs(name, batch, without(read, set(), slots - {0}) if len(slots) > 1 else None)) < TOLERANCE


@law("masked")
def test_masked_virtual_tokens_of_causal_models(method: str, name: str) -> None:
    check_masked(method, name)


@law("masked", "encoder")
def test_masked_virtual_tokens_of_encoders(method: str, name: str) -> None:
    check_masked(method, name)


@law("masked", "encoder-decoder")
def test_masked_virtual_tokens_of_encoder_decoders(method: str, name: str) -> None:
    check_masked(method, name)
