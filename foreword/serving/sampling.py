"""How the next token is chosen from logits: greedy by default, else drawn; virtual tokens are never part of what is penalised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from foreword.errors import UsageError
from foreword.serving.structured_output import Grammar


@dataclass(frozen=True)
class SamplingParams:
    """Temperature 0 is greedy. `top_p` (Holtzman et al. 2020, arXiv:1904.09751), `min_p` (arXiv:2407.01082), `repetition_penalty` (Keskar et al. 2019, arXiv:1909.05858).

    `stop` ends the answer before any of these strings; `logprobs` is how many alternatives to report; `seed` makes draws repeatable;
    `json_schema` (as JSON text) is what the answer must be.
    Raises UsageError for what cannot be.
    """

    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    json_schema: str | None = None

    def __post_init__(self) -> None:
        _check("max_tokens", self.max_tokens, self.max_tokens is None or self.max_tokens >= 1, "at least 1")
        _check("temperature", self.temperature, 0.0 <= self.temperature <= 10.0, "from 0 (greedy) to 10")
        _check("top_p", self.top_p, 0.0 < self.top_p <= 1.0, "above 0 and at most 1")
        _check("top_k", self.top_k, self.top_k >= 0, "at least 0 (0 leaves it out)")
        _check("min_p", self.min_p, 0.0 <= self.min_p <= 1.0, "from 0 to 1")
        _check("repetition_penalty", self.repetition_penalty, 0.0 < self.repetition_penalty <= 10.0, "above 0 and at most 10")
        _check("logprobs", self.logprobs, self.logprobs is None or 0 <= self.logprobs <= 20, "from 0 to 20")
        _check("stop", list(self.stop), len(self.stop) <= 16 and all(self.stop), "at most 16 strings, none of them empty")
        biases = self.logit_bias.values()
        _check("logit_bias", dict(self.logit_bias), all(-100 <= bias <= 100 for bias in biases), "numbers from -100 to 100")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is all that is asked for."""
        processed = self.repetition_penalty != 1 or self.logit_bias or self.json_schema is not None
        return self.temperature == 0 and self.logprobs is None and not processed


@final
class Sampler:
    """Chooses the tokens of one answer."""

    def __init__(self, params: SamplingParams, prompt: Sequence[int], grammar: Grammar | None = None) -> None:
        self.params, self.grammar = params, grammar
        self.seen = set(prompt)
        self.greedy = params.greedy
        self.random = torch.Generator().manual_seed(torch.seed() if params.seed is None else params.seed)

    @property
    def terminated(self) -> bool:
        """Whether the schema of the answer allows nothing more."""
        return self.grammar is not None and self.grammar.terminated

    def sample(self, logits: Float[Tensor, " V"]) -> tuple[int, float | None, dict[int, float]]:
        """The next token, its log-probability and those of the likeliest, where they are asked for."""
        params = self.params
        scores = self._processed(logits.float().cpu())
        token = int(scores.argmax()) if params.temperature == 0 else self._drawn(scores / params.temperature)
        self.seen.add(token)
        if self.grammar is not None:
            self.grammar.accept_token(token)
        if params.logprobs is None:
            return token, None, {}
        logs = scores.log_softmax(0)
        best = logs.topk(params.logprobs) if params.logprobs else None
        top = dict(zip(best.indices.tolist(), best.values.tolist(), strict=True)) if best else {}
        return token, float(logs[token]), top

    def _processed(self, scores: Float[Tensor, " V"]) -> Float[Tensor, " V"]:
        """Penalty for tokens of the text and of the answer so far, then biases, then what a schema allows."""
        params = self.params
        if params.repetition_penalty != 1 or params.logit_bias:
            scores = scores.clone()
        if params.repetition_penalty != 1:
            index = torch.tensor(sorted(self.seen))
            found = scores[index]
            scores[index] = torch.where(found > 0, found / params.repetition_penalty, found * params.repetition_penalty)
        for token, bias in params.logit_bias.items():
            if not 0 <= token < len(scores):
                raise UsageError(f"logit_bias names token {token}, but the vocabulary has {len(scores)} tokens; give ids below that.")
            scores[token] += bias
        return scores if self.grammar is None else scores.masked_fill(~self.grammar.allowed_tokens(), -torch.inf)

    def _drawn(self, scores: Float[Tensor, " V"]) -> int:
        params = self.params
        shares, order = scores.softmax(0).sort(descending=True)
        keep = torch.ones_like(shares, dtype=torch.bool)
        if params.top_k:
            keep[params.top_k :] = False
        keep &= shares.cumsum(0) - shares < params.top_p  # the token that passes the share is still in
        keep &= shares >= params.min_p * shares[0]
        return int(order[torch.multinomial(shares * keep, 1, generator=self.random)])


def _check(name: str, value: object, right: bool, expected: str) -> None:
    if not right:
        raise UsageError(f"{name} is {value!r}, but it must be {expected}.")
