"""The sampler of a step: one argmax for all greedy answers, and draws by exact whole numbers, so that an answer is the same alone and in any batch.

A draw needs no sort. Shares are whole numbers, whose sums do not depend on the order of addition. A token is drawn from all that are left; if too many
tokens, or too much of the whole share, are likelier than it, then it and all that are less likely are left out, and the draw is repeated. Such a
rejection leaves exactly the distribution over the tokens that `top_k`, `top_p` and `min_p` allow; equally likely tokens are allowed together.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from foreword.errors import ServingError, UsageError
from foreword.serving.sampling_state import SampledToken, SamplingState

_ONE = 1 << 40  # the share of the likeliest token; the sum of 2²² tokens still fits an int64
_CPU_ELEMENTS = 1 << 18  # logits that are processed at once, so that what is computed from them stays in the processor's cache
_GPU_ELEMENTS = 1 << 24

Outcome = SampledToken | Exception


def sample(logits: Float[Tensor, "B V"], states: Sequence[SamplingState]) -> list[Outcome]:
    """The next token of each answer, or what went wrong for that one alone."""
    likeliest, sound = _likeliest(logits)
    outcomes: list[Outcome] = [
        SampledToken(token)
        if right
        else ServingError("the model's logits are not finite numbers, so no token can be chosen; look at its adapter and its precision.")
        for token, right in zip(likeliest.flatten().tolist(), sound, strict=True)
    ]
    others = [row for row, state in enumerate(states) if sound[row] and not state.greedy]
    size = max(1, (_CPU_ELEMENTS if logits.device.type == "cpu" else _GPU_ELEMENTS) // logits.shape[-1])
    for begin in range(0, len(others), size):
        rows = others[begin : begin + size]
        chosen = _sample_others(_rows(logits, rows).float(), _rows(likeliest, rows), [states[row] for row in rows])
        for row, outcome in zip(rows, chosen, strict=True):
            outcomes[row] = outcome
    return outcomes


def _likeliest(logits: Float[Tensor, "B V"]) -> tuple[Int[Tensor, "B 1"], list[bool]]:
    """The likeliest token of each row, and whether its logit is a finite number; NaN counts as the likeliest of all."""
    tokens = argmax(logits)[:, None]
    return tokens, logits.gather(-1, tokens).isfinite().flatten().tolist()


def argmax(logits: Float[Tensor, "B V"]) -> Int[Tensor, " B"]:
    """The index of each row's highest number, the first of equals: by parts on a CPU, where torch's own takes as long as a layer of the model for bf16."""
    size = _part(logits.shape[-1]) if logits.device.type == "cpu" else None
    if size is None:
        return logits.argmax(-1)
    parts = logits.unflatten(-1, (-1, size))
    part = parts.amax(-1).argmax(-1)
    return part * size + parts[torch.arange(len(parts)), part].argmax(-1)


@cache
def _part(vocabulary: int) -> int | None:
    """The most numbers up to 1,024 that a vocabulary divides into, None if that leaves too many parts."""
    return next((size for size in range(1024, 31, -1) if vocabulary % size == 0), None)


def _rows(tensor: Tensor, rows: Sequence[int]) -> Tensor:
    """Some rows in ascending order, without a copy where they are neighbours."""
    begin, end = rows[0], rows[-1] + 1
    return tensor[begin:end] if end - begin == len(rows) else tensor[list(rows)]


def _sample_others(scores: Float[Tensor, "B V"], likeliest: Int[Tensor, "B 1"], states: Sequence[SamplingState]) -> list[Outcome]:
    """Tokens of answers that want more than the likeliest one as it is."""
    problems: dict[int, Exception] = {}
    if any(state.processes for state in states):
        scores = scores.clone()
        for row, state in enumerate(states):
            try:
                state.process(scores[row])
            except Exception as error:  # in one answer's grammar, say: the others go on
                problems[row] = error
        likeliest, possible = _likeliest(scores)
        for row in range(len(states)):
            if not possible[row] and row not in problems:
                problems[row] = UsageError("no token may come next in the answer; change its biases, its structure or min_tokens.")
    tokens = likeliest.flatten().tolist()
    drawn = [row for row, state in enumerate(states) if state.params.temperature > 0 and row not in problems]
    if drawn:
        below = _rows(scores, drawn) - _rows(scores, drawn).gather(-1, _rows(likeliest, drawn))
        for row, token in zip(drawn, draw(below, [states[row] for row in drawn]), strict=True):
            tokens[row] = token
    made = _with_logprobs(scores, tokens, states)
    return [problems.get(row, made[row]) for row in range(len(states))]


def _with_logprobs(scores: Float[Tensor, "B V"], tokens: Sequence[int], states: Sequence[SamplingState]) -> list[SampledToken]:
    made = [SampledToken(token) for token in tokens]
    asked = [row for row, state in enumerate(states) if state.params.logprobs is not None]
    if asked:
        most = [states[row].params.logprobs or 0 for row in asked]
        found = logprobs(_rows(scores, asked), [tokens[row] for row in asked], most)
        for row, (logprob, top) in zip(asked, found, strict=True):
            made[row] = SampledToken(tokens[row], logprob, top)
    return made


def logprobs(scores: Float[Tensor, "B V"], tokens: Sequence[int], most: Sequence[int]) -> list[tuple[float, dict[int, float]]]:
    """The log-probability of one token of each row, and those of the row's likeliest, as many as are asked for."""
    logs = scores.log_softmax(-1)
    chosen = logs.gather(-1, torch.tensor(tokens, device=scores.device)[:, None]).flatten().tolist()
    best = logs.topk(min(max(most), scores.shape[-1]))
    values, names = best.values.tolist(), best.indices.tolist()
    return [(chosen[row], dict(zip(names[row][:count], values[row][:count], strict=True))) for row, count in enumerate(most)]


def draw(below: Float[Tensor, "B V"], states: Sequence[SamplingState]) -> list[int]:
    """A token of each row, as often as its share among those that the row's parameters allow.

    Args:
        below: Scores minus the highest of their row. Changed in place.
        states: With a temperature above 0.
    """
    temperatures = torch.tensor([[state.params.temperature] for state in states], device=below.device)
    shares = below.div_(temperatures).exp_().mul_(_ONE).long()
    limits = [state.params.top_p * total for state, total in zip(states, shares.sum(-1).tolist(), strict=True)]
    if any(state.params.min_p for state in states):
        least = torch.tensor([[int(state.params.min_p * _ONE)] for state in states], device=shares.device)
        shares.masked_fill_(shares < least, 0)
    tokens, left = [0] * len(states), list(range(len(states)))
    while left:
        sums = shares.cumsum(-1)
        targets = [[states[row].random.randrange(total)] for row, total in zip(left, sums[:, -1].tolist(), strict=True)]
        found = torch.searchsorted(sums, torch.tensor(targets, device=sums.device), right=True)
        for row, token in zip(left, found.flatten().tolist(), strict=True):
            tokens[row] = token
        filtered = [place for place, row in enumerate(left) if states[row].params.top_k or states[row].params.top_p < 1]
        if not filtered:
            break
        shares, found, left = _rows(shares, filtered), _rows(found, filtered), [left[place] for place in filtered]
        likelier = torch.where(shares > shares.gather(-1, found), shares, 0)
        counts, sizes = likelier.count_nonzero(-1).tolist(), likelier.sum(-1).tolist()
        refused = [place for place, row in enumerate(left) if sizes[place] >= limits[row] or 0 < states[row].params.top_k <= counts[place]]
        if not refused:
            break
        shares, left = _rows(likelier, refused), [left[place] for place in refused]
    return tokens
