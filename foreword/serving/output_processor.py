"""The output processor: from logits to events, with each answer's next token, new text and end."""

from __future__ import annotations

from torch import Tensor

from foreword.serving.request import Done, FinishReason, Token
from foreword.serving.sequence import Sequence


def process_logits(sequence: Sequence, likeliest: int, logits: Tensor) -> bool:
    """Give a sequence its next token from logits [V] with a known argmax; True if the answer has ended and its end was emitted."""
    sampler = sequence.sampler
    token, logprob, top = (likeliest, None, {}) if sampler.greedy else sampler.sample(logits)
    if token in sequence.eos_tokens:
        finish(sequence, "stop")
        return True
    sequence.append(token)
    if sequence.detokenizer.update(sequence.tokens):
        finish(sequence, "stop")
        return True
    sequence.emit(Token(sequence.detokenizer.new_text(), token, logprob, top))
    if sampler.terminated:
        finish(sequence, "stop")
        return True
    if sequence.num_output_tokens == sequence.max_tokens:
        finish(sequence, "length")
        return True
    return False


def finish(sequence: Sequence, reason: FinishReason) -> None:
    """Emit the text that was held back, unless the request was cancelled, and the end."""
    if reason != "cancelled" and (text := sequence.detokenizer.new_text(finished=True)):
        sequence.emit(Token(text, sequence.tokens[-1]))
    sequence.emit(Done(reason, sequence.num_prompt_tokens, sequence.num_output_tokens))
