"""Tiny random encoder–decoders of every shape that matters, with tiny tokenizers that frame texts as the families' own do."""

from __future__ import annotations

from functools import cache
from typing import Any

import tiny
import torch
from tokenizers import processors
from transformers import AutoConfig, AutoModelForSeq2SeqLM, PreTrainedModel, PreTrainedTokenizerFast

from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.loading.load_model import wrap

PAD, BOS, EOS, LANGUAGE = tiny.PAD, tiny.BOS, tiny.EOS, 3

_WORDS = {"vocab_size": 320, "pad_token_id": PAD, "eos_token_id": EOS, "decoder_start_token_id": PAD}
_T5 = {**_WORDS, "d_model": 32, "d_kv": 8, "num_heads": 4, "d_ff": 64, "num_layers": 2, "relative_attention_num_buckets": 8}
_GATED = {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
_BART = {
    **_WORDS,
    "bos_token_id": BOS,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 160,
    "init_std": 0.2,
}
_UNTIED = {**_BART, "tie_word_embeddings": False, "scale_embedding": True}

# Name -> model type and config; FLAN's shape is T5's with gates and an output matrix of its own.
SEQ2SEQ: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("t5", _T5),
    "t5-odd": ("t5", {**_T5, "d_kv": 12, "num_heads": 3, "num_decoder_layers": 3}),
    "t5-flan": ("t5", {**_GATED, "d_kv": 16, "num_heads": 3}),
    "mt5": ("mt5", {**_GATED, "d_kv": 16, "num_decoder_layers": 1}),
    "bart": ("bart", {**_BART, "decoder_start_token_id": EOS, "encoder_layers": 1, "decoder_attention_heads": 2}),
    "mbart": ("mbart", {**_UNTIED, "decoder_start_token_id": LANGUAGE}),
    "marian": ("marian", {**_UNTIED, "bos_token_id": None}),
    "pegasus": ("pegasus", {**_UNTIED, "decoder_layers": 3}),
}
_FRAMES = {"bart": "<bos> $A <eos>", "mbart": "$A <eos> <user>"}


def network(name: str, **changes: Any) -> PreTrainedModel:
    """A fresh random model in fp32; norms, biases and relative positions are random too, so that none of them can be forgotten unnoticed."""
    model_type, settings = SEQ2SEQ[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(model_type, **{**settings, **changes})).eval()
        if "t5" not in model_type:  # one table for both stacks, as every checkpoint has; the output matrix may be another
            made.base_model.set_input_embeddings(made.base_model.shared)
        with torch.no_grad():
            if "t5" in model_type:
                made.get_input_embeddings().weight.mul_(0.1)  # else the layers hardly change what an embedding says
            for key, parameter in made.named_parameters():
                if parameter.dim() == 1 or "relative_attention_bias" in key:
                    parameter.add_((0.1 if parameter.dim() == 1 else 1.0) * torch.randn_like(parameter))
    rules = made.generation_config
    if name == "bart":
        rules.forced_bos_token_id = BOS
    if name == "marian":
        rules.bad_words_ids = [[PAD]]
    return made


@cache
def tokenizer(name: str) -> PreTrainedTokenizerFast:
    """The tiny byte-level tokenizer with the family's own frame around a source: `text </s>`, BART's `<s> text </s>`, mBART's `text </s> language`."""
    made = PreTrainedTokenizerFast(
        tokenizer_object=tiny.tokenizer(bos=False).backend_tokenizer.__class__.from_str(
            tiny.tokenizer(bos=False).backend_tokenizer.to_str()
        ),
        **{"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "additional_special_tokens": ["<user>", "<model>"]},
    )
    frame = _FRAMES.get(SEQ2SEQ[name][0], "$A <eos>")
    special = [("<bos>", BOS), ("<eos>", EOS), ("<user>", LANGUAGE)]
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(single=frame, special_tokens=special)  # type: ignore[assignment]
    return made


def build(name: str, **changes: Any) -> FrozenModel:
    """A frozen tiny model of one's own, for tests that change it."""
    return wrap(network(name, **changes), tokenizer(name), name=f"tiny-{name}")


@cache
def frozen(name: str) -> FrozenModel:
    """A shared frozen tiny model: read it, never change it."""
    return build(name)
