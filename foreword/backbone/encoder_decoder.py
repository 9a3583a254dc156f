"""Encoder–decoders: a row is split where its answer begins; the part before it goes into the encoder, the answer into the decoder.

Both are padded on the right, because absolute positions count columns. Answers are causal, so they never attend to the pads after them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from foreword.backbone import merge_virtual_tokens
from foreword.backbone.batch import Batch
from foreword.errors import DataError


def answers(batch: Batch) -> Bool[Tensor, "B T"]:
    """Which tokens are of the answer: all from a row's first label on."""
    return ((batch.labels >= 0).long().cumsum(1) > 0) & batch.mask


def front(keep: Bool[Tensor, "B N"]) -> tuple[Int[Tensor, "B S"], Bool[Tensor, "B S"]]:
    """The columns to keep, in their order and padded on the right, and the mask of those that are not pads."""
    order = (~keep).long().argsort(dim=1, stable=True)[:, : int(keep.sum(1).max())]
    return order, keep.gather(1, order)


def inputs(
    batch: Batch, soft: Float[Tensor, "B P E"] | None, embed: Callable[[Tensor], Tensor], opening: Sequence[int]
) -> tuple[dict[str, Any], Bool[Tensor, "B A"], Int[Tensor, "B T"]]:
    """Both sides of a batch as keyword arguments, virtual tokens merged with the source.

    Also the decoder's columns that predict an answer (those of `opening` but the last do not), and the one [B, T] behind each of the
    caller's tokens; the source is read as a whole, so the answer's first token is what follows each of its tokens.
    Raises DataError for a row with nothing to read, and for soft tokens inside an answer.
    """
    answer = answers(batch)
    source = batch.mask & ~answer
    behind = answer.gather(1, (batch.at - 1).clamp_min(0)) & (batch.at > 0)
    if bool(behind.any()):
        raise DataError("a soft token comes after the answer's first token, where the encoder does not read it; put it before the answer.")
    if soft is None:
        order, mask = front(source)
        given = {"input_ids": batch.ids.gather(1, order)}
    else:
        merged = merge_virtual_tokens.merge(embed(batch.ids), source, soft, batch.at)
        order, mask = front(merged.mask)
        given = {"inputs_embeds": merged.embeds.gather(1, order[:, :, None].expand(-1, -1, merged.embeds.shape[2]))}
    if not bool(mask.any(1).all()):
        raise DataError("a row has no token for the encoder; put words or a field into the template, or remove empty texts.")
    start = torch.tensor(list(opening), device=batch.ids.device).expand(len(batch.ids), -1)
    decoder = torch.cat([start, batch.ids.gather(1, front(answer)[0])], 1)
    predicts = torch.arange(decoder.shape[1], device=decoder.device).expand(len(decoder), -1) >= len(opening) - 1
    return {**given, "attention_mask": mask.long(), "decoder_input_ids": decoder}, predicts, answer.long().cumsum(1) + len(opening) - 1


def decoder_opening(rules: GenerationConfig | None) -> tuple[int, ...]:
    """What a decoder reads before every answer: its start token and, where generation forces one, the first token (BART's <s>, mBART-50's language).

    () if the generation config has no start token.
    """
    start, forced = (getattr(rules, f"{name}_token_id", None) for name in ("decoder_start", "forced_bos"))
    if start is None:
        return ()
    return (int(start),) if forced is None else (int(start), int(forced))


def embed_scale(network: PreTrainedModel) -> float:
    """What the encoder multiplies embeddings of token ids with, but not embeddings it is given (Marian, Pegasus)."""
    return float(vars(network.get_encoder()).get("embed_scale", 1.0))


def sides(
    text: Float[Tensor, "N E"], before: Float[Tensor, "F E"], after: Float[Tensor, "C E"], start: Float[Tensor, "S E"], scale: float
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """A text's embeddings as a source and as an answer, for one forward pass, and how many special tokens each part's keys have before it.

    `before` and `after` stand around a source, `start` before an answer; decoders that scale (`embed_scale`) scale what they are given too.
    """
    given = {"inputs_embeds": torch.cat([before, text, after])[None], "decoder_inputs_embeds": torch.cat([start, text])[None] / scale}
    return given, {"encoder": len(before), "cross": len(before), "decoder": len(start)}
