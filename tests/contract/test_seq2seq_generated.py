"""Law of encoder–decoders: generated. Greedy answers are the likeliest without a cache; beams are transformers' own over the same keys."""

from __future__ import annotations

import pytest
import tiny_seq2seq
import torch
from contract.given import TOLERANCE, distance, labelled, stock, words
from contract.given import row_for as causal_row
from contract.given import tokens as causal_tokens
from contract.given_seq2seq import by_hand, line, row, row_for, sides, tokens
from contract.laws import law
from tiny import frozen as causal
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel

from foreword.backbone.batch import collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.generation.beam_search import search
from foreword.backbone.generation.greedy_search import generate
from foreword.errors import DataError
from foreword.prompts.template import Row
from foreword.prompts.tokens import EmbeddingPrefix, KVPrefix, VirtualTokens

NEW, BEAMS = 7, 3
SOURCES = (2, 9, 5)


def asked(read: VirtualTokens | None, source: int) -> Row:
    """A source alone."""
    whole = row_for(read, source, 1, source)
    return Row(whole.ids[:-1], whole.at)


def most_likely(model: FrozenModel, one: Row, read: VirtualTokens | None, new: list[int]) -> list[int]:
    """The likeliest token at each place of `new`, read as an answer in one pass without a cache: `new` itself, if it is greedy."""
    whole = labelled((*one.ids, *new), one.at, (*(-100,) * len(one.ids), *new))
    batch = collate([whole])
    with torch.no_grad():
        logits = model.predicting(batch, read, batch.labels >= 0)
    for (bad,) in model.network.generation_config.bad_words_ids or []:  # type: ignore[union-attr]
        logits[:, bad] = -torch.inf
    return logits.argmax(-1).tolist()


@law("generated", "encoder-decoder")
def test_greedy_in_a_batch_is_the_likeliest_for_every_row(method: str, name: str) -> None:
    model = tiny_seq2seq.frozen(name)
    reads = [tokens(name, method), None, tokens(name, "prompt-tuning", 2)]
    rows = [asked(read, source) for read, source in zip(reads, SOURCES, strict=True)]
    together = generate(model, collate(rows), reads, max_new_tokens=NEW, stop=())
    for one, read, new in zip(rows, reads, together, strict=True):
        assert len(new) == NEW and most_likely(model, one, read, new) == new
    assert generate(model, collate(rows[:1]), reads[0], max_new_tokens=NEW, stop=()) == together[:1]


@torch.no_grad()
def own_beams(name: str, one: Row, read: VirtualTokens | None, stop: int | None) -> list[int]:
    """transformers' beam search with no cache, over a stock model whose attentions are worked out by hand."""
    network = by_hand(name, read if isinstance(read, KVPrefix) else None)
    encoder, source = network.get_encoder(), sides(one)[0]
    seen = encoder(inputs_embeds=line(network, one, read)) if isinstance(read, EmbeddingPrefix) else encoder(torch.tensor([source]))
    opening = len(tiny_seq2seq.frozen(name).answer_opening)
    limits = {"num_beams": BEAMS, "do_sample": False, "max_new_tokens": NEW + opening - 1, "eos_token_id": stop, "pad_token_id": 0}
    mask = torch.ones(seen.last_hidden_state.shape[:2], dtype=torch.long)
    network.generation_config.forced_eos_token_id = None  # type: ignore[union-attr]
    return network.generate(encoder_outputs=seen, attention_mask=mask, use_cache=False, **limits)[0, opening:].tolist()  # type: ignore[operator]


@law("generated", "encoder-decoder")
def test_beams_in_a_batch_are_transformers_own(method: str, name: str) -> None:
    model = tiny_seq2seq.frozen(name)
    reads = [tokens(name, method), None, tokens(name, "p-tuning-v2", 2, parts=("cross",))]
    rows = [asked(read, source) for read, source in zip(reads, SOURCES, strict=True)]
    together = search(model, collate(rows), reads, num_beams=BEAMS, max_new_tokens=NEW, stop=())
    for one, read, new in zip(rows, reads, together, strict=True):
        assert new == own_beams(name, one, read, None)
    stop = together[0][3]
    ended = search(model, collate(rows[:1]), reads[0], num_beams=BEAMS, max_new_tokens=NEW, stop=[stop])
    truth = own_beams(name, rows[0], reads[0], stop)
    assert ended == [truth[: truth.index(stop)] if stop in truth else truth]


@pytest.mark.parametrize("name", tiny_seq2seq.SEQ2SEQ)
def test_without_a_prompt_greedy_and_beams_are_the_stock_models(name: str) -> None:
    rows, network = [asked(None, source) for source in SOURCES], tiny_seq2seq.network(name)
    batch, right = collate(rows), collate(rows, side="right")
    opening = len(tiny_seq2seq.frozen(name).answer_opening)
    network.generation_config.forced_eos_token_id = None  # type: ignore[union-attr]
    for beams in (1, BEAMS):
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())  # stock's own has too few layers for a deeper decoder
        limits = {"num_beams": beams, "do_sample": False, "max_new_tokens": NEW + opening - 1, "eos_token_id": None, "pad_token_id": 0}
        truth = network.generate(right.ids, attention_mask=right.mask.long(), past_key_values=cache, **limits)[:, opening:].tolist()  # type: ignore[operator]
        assert search(tiny_seq2seq.frozen(name), batch, None, num_beams=beams, max_new_tokens=NEW, stop=()) == truth
        if beams == 1:
            assert generate(tiny_seq2seq.frozen(name), batch, None, max_new_tokens=NEW, stop=()) == truth


def moved_positions(network: PreTrainedModel, length: int) -> None:
    """Give a decoder at position P+j what it learned for j: PEFT counts a prefix as text, Foreword does not."""
    table = network.get_decoder().embed_positions
    offset = getattr(table, "offset", 0)
    with torch.no_grad():
        table.weight[offset + length :] = table.weight[offset:-length].clone()


@pytest.mark.parametrize("name", ["bart", "mbart", "marian", "pegasus"])
def test_a_decoder_prefix_is_peft_s_but_for_positions(name: str) -> None:
    """PEFT fills the decoder's cache; the text's positions then begin behind the prefix."""
    read, one, network = tokens(name, "p-tuning-v2", parts=("decoder",)), row(6, 4), tiny_seq2seq.network(name)
    assert isinstance(read, KVPrefix)
    moved_positions(network, read.length)
    cache = EncoderDecoderCache(DynamicCache([(read.keys[i][None], read.values[i][None]) for i in sorted(read.keys)]), DynamicCache())
    source, answer = sides(one)
    opening = list(tiny_seq2seq.frozen(name).answer_opening)
    with torch.no_grad():
        truth: Tensor = network(torch.tensor([source]), decoder_input_ids=torch.tensor([opening + answer]), past_key_values=cache).logits[0]
        ours = tiny_seq2seq.frozen(name).forward(collate([one]), read)[0]
    assert distance(ours[len(source) - 1 :], truth[len(opening) - 1 :]) < TOLERANCE


def test_words_that_are_never_text_are_never_written() -> None:
    model = tiny_seq2seq.build("marian")
    batch = collate([asked(None, source) for source in SOURCES])
    first = generate(model, batch, None, max_new_tokens=1, stop=())
    model.network.generation_config.bad_words_ids = [[token] for (token,) in first]  # type: ignore[union-attr]
    banned = {token for (token,) in first}
    for found in (
        generate(model, batch, None, max_new_tokens=5, stop=()),
        search(model, batch, None, num_beams=2, max_new_tokens=5, stop=()),
    ):
        assert all(len(new) == 5 and not banned & set(new) for new in found)


@pytest.mark.parametrize("method", ["prompt-tuning", "prefix-tuning"])
@pytest.mark.parametrize("name", ["llama-grouped", "gemma3_text", "gpt2"])
def test_beams_of_causal_models(name: str, method: str) -> None:
    """With a prompt in each row they are the row's own; without one they are transformers'."""
    model, reads = causal(name), [causal_tokens(name, method, window="model"), None, causal_tokens(name, method, 7, window="model")]
    rows = [causal_row(read, words(count, count)) for read, count in zip(reads, (2, 9, 5), strict=True)]
    length_budget = {"num_beams": BEAMS, "max_new_tokens": NEW, "stop": ()}
    together = search(model, collate(rows), reads, **length_budget)
    for one, read, new in zip(rows, reads, together, strict=True):
        assert search(model, collate([one]), read, **length_budget) == [new]
    single = search(model, collate(rows), reads, **{**length_budget, "num_beams": 1})
    assert single == generate(model, collate(rows), reads, max_new_tokens=NEW, stop=()), "one beam is greedy"
    ids = torch.tensor([rows[1].ids])
    limits = {"num_beams": BEAMS, "do_sample": False, "max_new_tokens": NEW, "eos_token_id": None, "pad_token_id": 0}
    truth = stock(name).generate(ids, attention_mask=torch.ones_like(ids), **limits)  # type: ignore[operator]
    assert together[1] == truth[0, ids.shape[1] :].tolist()
    assert len({tuple(new) for new in together}) == 3


def test_a_row_with_nothing_to_read() -> None:
    with pytest.raises(DataError) as caught:
        generate(tiny_seq2seq.frozen("t5"), collate([Row((5, 6)), Row(())]), None, max_new_tokens=1, stop=())
    assert str(caught.value) == ("a row has no token for the encoder; put words or a field into the template, or remove empty texts.")
