"""The output processor: from logits to events, with each answer's next token, new text and end."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from jaxtyping import Float
from torch import Tensor

from foreword.serving.request import Done, Failed, FinishReason, Token
from foreword.serving.sequence import Sequence


def process_logits(sequences: Seq[Sequence], logits: Float[Tensor, "B V"]) -> list[Sequence]:
    """Give each sequence its next token and emit its events; the sequences that have ended, each with its one end emitted.

    Whatever goes wrong for one sequence fails that sequence only.
    """
    likeliest = logits.argmax(-1).tolist()
    return [sequence for index, sequence in enumerate(sequences) if _advance(sequence, likeliest[index], logits[index])]


def _advance(sequence: Sequence, likeliest: int, logits: Tensor) -> bool:
    """One more token; True if the answer has ended."""
    try:
        sampler = sequence.sampler
        token, logprob, top = (likeliest, None, {}) if sampler.greedy else sampler.sample(logits)
        reason = _append(sequence, token, logprob, top)
        if reason is not None:
            finish(sequence, reason)
    except Exception as error:  # whatever the error, the other sequences go on
        sequence.emit(Failed("engine", f"the answer cannot go on ({type(error).__name__}: {error})."))
        return True
    return reason is not None


def _append(sequence: Sequence, token: int, logprob: float | None, top: dict[int, float]) -> FinishReason | None:
    """Add a token to an answer and emit its new text; why the answer ends here, if it does."""
    if token in sequence.eos_tokens:
        return "stop"
    sequence.append(token)
    if sequence.detokenizer.update(sequence.tokens):
        return "stop"
    sequence.emit(Token(sequence.detokenizer.new_text(), token, logprob, top))
    if sequence.sampler.terminated:
        return "stop"
    return "length" if sequence.num_output_tokens == sequence.max_tokens else None


def finish(sequence: Sequence, reason: FinishReason) -> None:
    """Emit the text that was held back, unless the request was cancelled, and the end."""
    if reason != "cancelled" and (text := sequence.detokenizer.new_text(finished=True)):
        sequence.emit(Token(text, sequence.tokens[-1]))
    sequence.emit(Done(reason, sequence.num_prompt_tokens, sequence.num_output_tokens))
