"""The output processor: from logits to events, with each answer's next token, new text and end."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from jaxtyping import Float
from torch import Tensor

from foreword.errors import ForewordError, UsageError
from foreword.serving.request import Done, Failed, FinishReason, Token
from foreword.serving.sampling_state import SampledToken
from foreword.serving.sequence import Sequence
from foreword.serving.token_sampler import Outcome, sample


def process_logits(sequences: Seq[Sequence], logits: Float[Tensor, "B V"]) -> list[Sequence]:
    """Give each sequence its next token and emit its events; the sequences that have ended, each with its one end emitted.

    Never raises: whatever goes wrong for one sequence fails that sequence only.
    """
    try:
        outcomes = sample(logits, [sequence.sampling for sequence in sequences])
    except Exception as error:  # of the device, which all of them share
        outcomes = [error] * len(sequences)
    return [sequence for sequence, outcome in zip(sequences, outcomes, strict=True) if _advance(sequence, outcome)]


def process_prompt_logits(sequence: Sequence, logits: Float[Tensor, "T V"], first: int) -> None:
    """Note the log-probabilities of a part of the text, where the request asks for them. For each chunk of a prefill, before `process_logits`.

    Args:
        sequence: One of whose prompt nothing is read from the prefix cache.
        logits: Row i is what the model gave after input `first` + i; the inputs are the text and soft tokens of `sequence.prompt` in one line.
        first: The first of these inputs. Rows behind the prompt are left out.
    """
    if sequence.prompt_scores is not None:
        sequence.prompt_scores.add(logits, first)


def _advance(sequence: Sequence, outcome: Outcome) -> bool:
    """One more token; True if the answer has ended."""
    try:
        if isinstance(outcome, Exception):
            raise outcome
        if sequence.prompt_scores is not None and (scores := sequence.prompt_scores.take()) is not None:
            sequence.next_prompt_logits = None
            sequence.emit(scores)
        reason = _append(sequence, outcome)
        if reason is not None:
            finish(sequence, reason)
    except Exception as error:  # whatever the error, the other sequences go on
        what = error.request_message if isinstance(error, ForewordError) else f"the step failed ({type(error).__name__}: {error})."
        sequence.emit(Failed("request" if isinstance(error, UsageError) else "engine", what))
        return True
    return reason is not None


def _append(sequence: Sequence, sampled: SampledToken) -> FinishReason | None:
    """Add a token to an answer and emit its new text; why the answer ends here, if it does."""
    if sequence.max_tokens == 0:  # only the text's log-probabilities were asked for
        return "length"
    token = sampled.token
    sequence.sampling.accept_token(token)
    if token in sequence.eos_tokens:
        return "stop"
    sequence.append(token)
    searched = sequence.num_output_tokens >= sequence.request.sampling.min_tokens
    if sequence.detokenizer.update(token, searched=searched):
        return "stop"
    sequence.emit(Token(sequence.detokenizer.new_text(), token, sampled.logprob, sampled.top))
    if sequence.sampling.terminated:
        return "stop"
    return "length" if sequence.num_output_tokens == sequence.max_tokens else None


def finish(sequence: Sequence, reason: FinishReason) -> None:
    """Emit the text that was held back, unless the request was cancelled, and the end."""
    if reason != "cancelled" and (text := sequence.detokenizer.new_text(finished=True)):
        sequence.emit(Token(text, sequence.tokens[-1]))
    sequence.emit(Done(reason, sequence.num_prompt_tokens, sequence.num_output_tokens))
