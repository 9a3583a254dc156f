"""Encoder–decoders: how rows are cut, what decoders begin with, and what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_seq2seq
import torch
from contract.given_seq2seq import EOS, by_hand, row, tokens

from foreword.backbone import encoder_decoder
from foreword.backbone.attention.introspection import number_attentions
from foreword.backbone.batch import collate
from foreword.backbone.loading.load_model import load, wrap
from foreword.backbone.prompt_to_kv import compile_prompt
from foreword.errors import DataError, ModelError, UsageError
from foreword.prompts.init import Material, initial_values
from foreword.prompts.template import Row
from foreword.prompts.tokens import EmbeddingPrefix, unflatten_kv
from foreword.specs import PromptSpec

FIRST = Row((7, 8, EOS, 20, 21), (), (-100, -100, -100, 20, 21), (0.0, 0.0, 0.0, 1.0, 1.0))
SECOND = Row((9, EOS, 30), (), (-100, -100, 30), (0.0, 0.0, 1.0))


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_are_cut_at_their_answers_and_padded_on_the_right(side: str) -> None:
    batch = collate([FIRST, SECOND], pad=0, side=side)  # type: ignore[arg-type]
    inputs, predicts, text = encoder_decoder.inputs(batch, None, lambda ids: ids.float(), (2, 1))
    assert inputs["input_ids"].tolist() == [[7, 8, EOS], [9, EOS, inputs["input_ids"][1, 2]]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert inputs["decoder_input_ids"][:, :3].tolist() == [[2, 1, 20], [2, 1, 30]]
    assert predicts.tolist() == [[False, True, True, True]] * 2
    assert [text[b][batch.mask[b]].tolist() for b in (0, 1)] == [[1, 1, 1, 2, 3], [1, 1, 2]]


def test_a_token_of_an_answer_that_is_not_weighed_is_still_read() -> None:
    """Everything behind the first label is the answer, whether it is trained on or not."""
    batch = collate([Row((7, EOS, 20, 21, 22), (), (-100, -100, 20, -100, 22), (0.0, 0.0, 1.0, 0.0, 1.0))])
    assert encoder_decoder.inputs(batch, None, lambda ids: ids.float(), (0,))[0]["decoder_input_ids"].tolist() == [[0, 20, 21, 22]]


def test_soft_tokens_stand_in_the_source() -> None:
    model = tiny_seq2seq.frozen("t5")
    read = EmbeddingPrefix(torch.zeros(2, 32))
    with pytest.raises(DataError) as caught:
        model.forward(collate([Row(FIRST.ids, (0, 4), FIRST.labels, FIRST.weights)]), read)
    assert (
        str(caught.value)
        == "a soft token comes after the answer's first token, where the encoder does not read it; put it before the answer."
    )
    assert model.forward(collate([Row(FIRST.ids, (0, 3), FIRST.labels, FIRST.weights)]), read).shape == (1, 5, 320)


def test_only_answers_are_predicted() -> None:
    for name in ("t5", "bart"):
        batch = collate([FIRST])
        with pytest.raises(DataError, match="the first token of a row is a label, but no token before it predicts it"):
            tiny_seq2seq.frozen(name).predicting(batch, None, batch.mask)


def test_what_decoders_begin_with() -> None:
    begins = {name: tiny_seq2seq.frozen(name).answer_opening for name in tiny_seq2seq.SEQ2SEQ}
    assert begins["t5"] == (0,) and begins["bart"] == (EOS, tiny_seq2seq.BOS) and begins["mbart"] == (tiny_seq2seq.LANGUAGE,)
    model = wrap(tiny_seq2seq.network("mbart", decoder_start_token_id=None), tiny_seq2seq.tokenizer("mbart"), name="m")
    with pytest.raises(ModelError) as caught:
        model.forward(collate([row(5, 3)]))
    assert str(caught.value) == "model 'm' has no decoder_start_token_id, which begins every answer; set it in its generation_config.json."


def test_texts_are_framed_as_the_family_does() -> None:
    frames = {
        name: (tiny_seq2seq.frozen(name).tokenizer.opening, tiny_seq2seq.frozen(name).tokenizer.closing) for name in ("t5", "bart", "mbart")
    }
    assert frames == {"t5": ((), (EOS,)), "bart": ((1,), (EOS,)), "mbart": ((), (EOS, 3))}


@pytest.mark.parametrize("name", tiny_seq2seq.SEQ2SEQ)
def test_a_text_s_own_keys_and_values(name: str) -> None:
    """What an initialiser starts from is what the attentions make of the text as a source, as an answer, and looking across."""
    model, ids = tiny_seq2seq.frozen(name), [40, 41, 42]
    flat = model.keys_values(model.embed(ids))
    assert torch.equal(flat, model.keys_values(model.embed(ids), opening=True)), "its parts open differently"
    prefix = unflatten_kv(flat, range(len(model.shape.kv)), model.shape.kv, "pinned")
    network = by_hand(name)
    tokenizer, kept = model.tokenizer, {}
    from contract.given_seq2seq import attentions

    for slot, module in enumerate(attentions(network)):
        key = module.k if "t5" in name else module.k_proj
        key.register_forward_hook(lambda _, __, out, slot=slot: kept.update({slot: out}))
    source = torch.tensor([[*tokenizer.opening, *ids, *tokenizer.closing]])
    network(source, decoder_input_ids=torch.tensor([[*model.answer_opening, *ids]]), use_cache=False)
    for slot, kv in enumerate(model.shape.kv):
        skip = len(model.answer_opening) if kv.part == "decoder" else len(tokenizer.opening)
        truth = kept[slot][0, skip : skip + 3].view(3, kv.heads, kv.dim).transpose(0, 1)
        torch.testing.assert_close(prefix.keys[slot], truth, rtol=1e-4, atol=1e-4)


def test_a_prefix_of_some_parts_starts_there() -> None:
    model = tiny_seq2seq.frozen("t5-odd")
    spec = PromptSpec("p-tuning-v2", 3, "kv", parts=("decoder", "cross"), layers="last:1")
    first = initial_values(spec, model, Material("a joy to watch"))
    assert first.origin.shape == (3, 2 * 2 * 36) and spec.chosen_layers(model.shape) == (4, 7) and bool((first.scale > 0).all())


@pytest.mark.parametrize(("name", "parts"), [("llama", ("encoder",)), ("t5", ("encoder", "self"))])
def test_parts_that_are_not_there(name: str, parts: tuple[str, ...]) -> None:
    import tiny

    model = tiny.frozen(name) if name == "llama" else tiny_seq2seq.frozen(name)
    has = "is one stack without parts" if name == "llama" else "has encoder, decoder, cross"
    with pytest.raises(UsageError) as caught:
        PromptSpec("p-tuning-v2", 3, "kv", parts=parts).width(model.shape)
    assert str(caught.value) == (
        f"parts {', '.join(parts)} do not exist in a model that {has}; leave parts out, or choose among its parts."
    )


def test_a_saved_model_is_loaded_with_its_rules(tmp_path: Path) -> None:
    for name in ("t5-odd", "bart"):
        tiny_seq2seq.network(name).save_pretrained(tmp_path / name)
        tiny_seq2seq.tokenizer(name).save_pretrained(tmp_path / name)
        model, batch = load(tmp_path / name), collate([row(5, 3)])
        assert model.answer_opening == tiny_seq2seq.frozen(name).answer_opening
        read = tokens(name, "prefix-tuning")
        assert torch.equal(model.forward(batch, read), tiny_seq2seq.frozen(name).forward(batch, read))


def test_a_model_with_other_attentions_than_its_config_says() -> None:
    model = tiny_seq2seq.frozen("t5")
    with pytest.raises(ModelError) as caught:
        number_attentions(model.network, tiny_seq2seq.frozen("t5-odd").shape)
    assert str(caught.value) == (
        "a model of type 't5' has 6 attention layers that take a prefix, but its config says 8; "
        "load it with transformers' own class, without remote code."
    )


def test_prompts_are_not_compiled() -> None:
    read = EmbeddingPrefix(torch.zeros(1, 32))
    with pytest.raises(ModelError) as caught:
        compile_prompt(tiny_seq2seq.frozen("bart"), read, Row((5,), (0,)))
    assert str(caught.value) == (
        "a prompt of BART cannot be converted to keys and values: its first states depend on the text after them; use the prompt as it is."
    )
