"""The sampling state of one answer: what its next logits depend on beside the model, and its own random numbers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from foreword.serving.sampling import SamplingParams
from foreword.serving.structured_output import Grammar


@dataclass(frozen=True)
class SampledToken:
    """A token, its log-probability and those of the likeliest, where they are asked for."""

    token: int
    logprob: float | None = None
    top: Mapping[int, float] = field(default_factory=dict)


@final
class SamplingState:
    """Knows the text's tokens and those of the answer so far; virtual tokens are never among them. `end_tokens` end the answer."""

    def __init__(
        self,
        params: SamplingParams,
        prompt: Sequence[int] = (),
        *,
        end_tokens: Collection[int] = (),
        grammar: Grammar | None = None,
    ) -> None:
        self.params, self.grammar = params, grammar
        self.greedy, self.processes = params.greedy, params.processes
        self.counts = Counter[int]()
        self._prompt = torch.tensor(sorted(set(prompt)) if params.repetition_penalty != 1 else [], dtype=torch.long)
        self._biased = torch.tensor(list(params.logit_bias), dtype=torch.long)
        self._biases = torch.tensor(list(params.logit_bias.values()), dtype=torch.float32)
        self._ends = torch.tensor(sorted(end_tokens) if params.min_tokens else [], dtype=torch.long)

    @cached_property
    def random(self) -> random.Random:
        """Draws of this answer only, from its seed or from the system's randomness; made with the first draw."""
        seed = self.params.seed
        return random.Random(None if seed is None else seed % (1 << 64))  # Python would take -1 for 1

    @property
    def terminated(self) -> bool:
        """Whether the structure of the answer allows nothing more."""
        return self.grammar is not None and self.grammar.terminated

    def accept_token(self, token: int) -> None:
        """Take the next token of the answer. Raises ServingError where its structure does not allow it."""
        if self.greedy:
            return
        self.counts[token] += 1
        if self.grammar is not None:
            self.grammar.accept_token(token)

    def process(self, scores: Float[Tensor, " V"]) -> None:
        """Change logits in place: penalties for tokens of the text and of the answer so far, then biases, then what may not come."""
        params = self.params
        if params.repetition_penalty != 1:
            index = torch.cat([self._prompt, torch.tensor(list(self.counts), dtype=torch.long)]).to(scores.device)
            found = scores[index]
            scores[index] = torch.where(found > 0, found / params.repetition_penalty, found * params.repetition_penalty)
        if self.counts and (params.frequency_penalty or params.presence_penalty):
            index = torch.tensor(list(self.counts), device=scores.device)
            times = torch.tensor(list(self.counts.values()), dtype=scores.dtype, device=scores.device)
            scores[index] -= params.frequency_penalty * times + params.presence_penalty
        if params.logit_bias:
            scores[self._biased.to(scores.device)] += self._biases.to(scores.device)
        if self.counts.total() < params.min_tokens:
            scores[self._ends.to(scores.device)] = -torch.inf
        if self.grammar is not None:
            scores.masked_fill_(~self.grammar.allowed_tokens().to(scores.device), -torch.inf)
