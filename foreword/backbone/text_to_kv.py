"""Keys and values of a text in every attention of a model, from input embeddings."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from foreword.backbone import encoder_decoder
from foreword.backbone.attention.builtin_observers import Recorder
from foreword.backbone.attention.observed_pass import ObservedPass
from foreword.backbone.attention.pass_layout import PassLayout
from foreword.backbone.input_embeddings import InputEmbeddings
from foreword.backbone.model_info import ModelInfo


@torch.no_grad()
def keys_values(
    network: PreTrainedModel,
    info: ModelInfo,
    input_embeddings: InputEmbeddings,
    slots: Mapping[nn.Module, int],
    embeddings: Float[Tensor, "N E"],
    *,
    opening: bool = False,
) -> Float[Tensor, "M W"]:
    """Keys and values of every attention for a run of input embeddings between special tokens (whose own are left out), flat.

    With `opening` those of the token before it come first (M = N + 1), where the model has one and reads one text (M = N elsewhere).
    An encoder–decoder reads it as a source and as an answer. A run longer than the model's positions is read in pieces.
    """
    tokenizer, shape, embed = info.tokenizer, info.shape, input_embeddings.embed
    limit = shape.positions - len(tokenizer.opening) - len(tokenizer.closing) - 2  # a decoder's own opening
    if len(embeddings) > limit:
        pieces = embeddings.split(limit)
        return torch.cat(
            [keys_values(network, info, input_embeddings, slots, piece, opening=opening and piece is pieces[0]) for piece in pieces]
        )
    text = embeddings.to(network.device, network.dtype)
    first = tokenizer.bos
    before = embed([first]) if first is not None else embed([])
    given, begin = {"inputs_embeds": torch.cat([before, text])[None]}, {"self": 0 if opening else len(before)}
    count = len(before) + len(text) - begin["self"]
    if shape.kind == "encoder-decoder":
        before, after, start = (embed(ids) for ids in (tokenizer.opening, tokenizer.closing, info.answer_opening))
        given, begin = encoder_decoder.sides(text, before, after, start, input_embeddings.scale)
        count = len(text)
    recorder = Recorder()
    observed = ObservedPass(slots, shape, PassLayout.empty(shape), None, [recorder])
    network.base_model(**given, foreword=observed, **({} if shape.kind == "encoder" else {"use_cache": False}))
    parts = []
    for slot, kv in enumerate(shape.kv):
        skip, call = begin[kv.part], recorder.calls[slot][0]
        pair = torch.stack([side[0, :, skip : skip + count] for side in (call.key, call.value)])  # [2, K, N, D]
        parts.append(pair.permute(2, 0, 1, 3).reshape(count, -1))
    return torch.cat(parts, dim=1).to(embeddings.device)
