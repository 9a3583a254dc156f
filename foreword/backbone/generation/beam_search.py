"""Beam search: that of transformers, over a shallow copy of the frozen model that gets the attachment in every step."""

from __future__ import annotations

from collections.abc import Callable, Collection
from copy import copy
from dataclasses import replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, GenerationConfig, PreTrainedModel

from foreword.backbone.attention.kv_prefix import PrefixAttachment
from foreword.backbone.batch import Batch
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.model_inputs import Tokens


@torch.inference_mode()
def search(
    model: FrozenModel,
    batch: Batch,
    tokens: Tokens,
    *,
    num_beams: int,
    max_new_tokens: int,
    stop: Collection[int],
    length_penalty: float = 1.0,
) -> list[list[int]]:
    """The likeliest of `num_beams` answers to each row, by log-probability / length^length_penalty; the stop token is left out.

    Of the checkpoint's generation config only the settings on allowed tokens are used: forced first tokens and tokens that never occur.
    """
    ready = model.prepare(batch, tokens)
    inputs = {name: value for name, value in ready.inputs.items() if name not in ("foreword", "decoder_input_ids")}
    attachment: PrefixAttachment | None = ready.inputs.get("foreword")
    rules = _rules(model, num_beams, max_new_tokens, stop, length_penalty)
    if model.shape.kind == "encoder-decoder":
        seen = {name: inputs.pop(name) for name in ("input_ids", "inputs_embeds") if name in inputs}
        carried = {} if attachment is None else {"foreword": attachment}
        # A dynamic cache: the one that generate makes has as many layers as the encoder, too few for a deeper decoder.
        inputs["past_key_values"] = EncoderDecoderCache(DynamicCache(), DynamicCache())
        inputs["encoder_outputs"] = model.network.get_encoder()(**seen, **carried, attention_mask=inputs["attention_mask"])
    view = _carrying(model.network, attachment.repeated(num_beams) if attachment else None, rules)
    found: Tensor = view.generate(**inputs)
    prompt_length = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
    opening = len(model.answer_opening) if model.shape.kind == "encoder-decoder" else prompt_length
    return [_until(row[opening:].tolist(), stop) for row in found]


def _rules(model: FrozenModel, num_beams: int, max_new_tokens: int, stop: Collection[int], length_penalty: float) -> GenerationConfig:
    """Our own generation config; that of a checkpoint (such as minimum lengths and repetition rules for summaries) was made for another task."""
    own: Any = model.network.generation_config  # typed as optional; every generating model has one
    both = model.shape.kind == "encoder-decoder"
    return GenerationConfig(
        num_beams=num_beams,
        do_sample=False,
        length_penalty=length_penalty,
        max_new_tokens=max_new_tokens + (len(model.answer_opening) - 1 if both else 0),
        eos_token_id=sorted(stop) or None,
        pad_token_id=model.tokenizer.pad,
        decoder_start_token_id=model.answer_opening[0] if both else None,
        forced_bos_token_id=own.forced_bos_token_id if both else None,
        bad_words_ids=own.bad_words_ids,
    )


def _carrying(network: PreTrainedModel, attachment: PrefixAttachment | None, rules: GenerationConfig) -> Any:
    """The same modules and weights with another generation config; the network is not changed, so threads do not interfere."""
    view: Any = copy(network)
    view.generation_config = rules
    if attachment is None:
        return view
    plain: Callable[..., dict[str, Any]] = view.prepare_inputs_for_generation

    @wraps(plain)
    def prepare(*args: Any, **kwargs: Any) -> dict[str, Any]:
        inputs = plain(*args, **kwargs)
        positions = inputs.get("position_ids")
        return {**inputs, "foreword": attachment if positions is None else replace(attachment, positions=positions)}

    view.prepare_inputs_for_generation = prepare
    return view


def _until(ids: list[int], stop: Collection[int]) -> list[int]:
    """The tokens before the first stop token; rows that end early are padded after it."""
    end = next((place for place, index in enumerate(ids) if index in stop), len(ids))
    return ids[:end]
