"""Knowledge probing: which of many candidates completes a sentence (LAMA, Petroni et al. 2019, arXiv:1909.01066; P-tuning, Liu et al. 2021, §4.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, final

from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.model_info import ModelInfo
from foreword.errors import DataError, UsageError
from foreword.prompts.init import Material
from foreword.prompts.template import Template
from foreword.tasks.base import EvalFeature, Example, Prediction
from foreword.tasks.data.list_cells import excerpt
from foreword.tasks.metrics.base import Score, mean
from foreword.tasks.template_task import TemplateTask, parsed
from foreword.tasks.verbalizer import AnswerTokens, candidate_scores


@final
@dataclass(frozen=True, init=False)
class Probe(TemplateTask):
    """Score(candidate) = mean log p(its tokens | the template filled with the example), over one or more tokens each.

    The template holds words, fields and soft tokens in any order, for example "{soft:3}The capital of {subject}{soft:3} is {answer}".
    """

    candidates: tuple[str, ...]
    template: Template = Template.parse("{subject}{soft} {answer}")
    description: str = ""
    tokens: AnswerTokens = field(init=False, repr=False, compare=False)
    kind: ClassVar[str] = "probe"
    metric: ClassVar[str] = "p_at_1"
    target: ClassVar[str] = "answer"

    def __init__(self, candidates: Sequence[str], template: Template | str = template, description: str = "") -> None:
        for name, value in {"candidates": tuple(candidates), "template": parsed(template), "description": description}.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "tokens", AnswerTokens())
        if len(self.candidates) < 2 or len(set(self.candidates)) != len(self.candidates):
            raise DataError(
                f"candidates {', '.join(self.candidates) or 'none'} came, but probing needs at least two different ones; check the answer column."
            )

    @classmethod
    def of(cls, examples: Sequence[Example], **settings: Any) -> Probe:
        """The task with every answer of the examples as a candidate, sorted."""
        return cls(tuple(sorted({example.get(cls.target, "") for example in examples} - {""})), **settings)

    def answer_ids(self, info: ModelInfo) -> list[list[int]]:
        """Token ids of each candidate behind the template's last words; raises UsageError when two read the same."""
        return self.tokens.of(info.tokenizer, lambda: self._tokenized(info))

    def _tokenized(self, info: ModelInfo) -> list[list[int]]:
        found: dict[tuple[int, ...], str] = {}
        for candidate in self.candidates:
            ids = tuple(info.tokenizer.encode(self.template.space + candidate))
            if not ids:
                raise UsageError(f"candidate '{candidate}' has no tokens of its own for {info.name}; leave it out.")
            if ids in found:
                raise UsageError(f"candidates '{found[ids]}' and '{candidate}' are the same tokens for {info.name}; leave one of them out.")
            found[ids] = candidate
        return [list(ids) for ids in found]

    def answer(self, example: Example, info: ModelInfo) -> list[int]:
        answer = example.get(self.target)
        if answer not in self.candidates:
            raise DataError(
                f"answer '{answer}' is not one of the {len(self.candidates)} candidates ({excerpt(', '.join(self.candidates))}); correct the data, or train with this answer."
            )
        return self.answer_ids(info)[self.candidates.index(answer)]

    def predict(
        self, model: FrozenModel, adapter_state: AdapterState, eval_features: Sequence[EvalFeature], batch_size: int
    ) -> Iterator[Prediction]:
        candidate_ids = self.answer_ids(model.info)
        for begin in range(0, len(eval_features), batch_size):
            rows = [eval_feature.rows[0] for eval_feature in eval_features[begin : begin + batch_size]]
            logs = candidate_scores(model, adapter_state.tokens, rows, candidate_ids, at_once=batch_size)
            for costs, shares in zip((-logs).tolist(), logs.softmax(1).tolist(), strict=True):
                ranked = sorted(range(len(costs)), key=costs.__getitem__)
                names = [self.candidates[c] for c in ranked]
                scores = dict(zip(names, (shares[c] for c in ranked), strict=True))
                yield Prediction(names[0], scores, dict(zip(names, (costs[c] for c in ranked), strict=True)))

    def score(self, predictions: Sequence[Prediction], targets: Sequence[str]) -> dict[str, Score]:
        """`p_at_1`: the share of examples whose likeliest candidate is right; `mrr`: the mean of 1 / rank of the right one."""
        ranks = [1 + list(p.scores).index(target) for p, target in zip(predictions, targets, strict=True)]
        return {"p_at_1": mean([float(rank == 1) for rank in ranks]), "mrr": mean([1 / rank for rank in ranks])}

    def material(self, examples: Sequence[Example]) -> Material:
        texts = tuple(" ".join(example[name] for name in self.columns) for example in examples)
        return Material(self.description or "Complete the sentence with a fact.", (), texts)

    def with_template(self, template: Template) -> Probe:
        return replace(self, template=template)

    def to_dict(self) -> dict[str, Any]:
        named = {"candidates": list(self.candidates), "description": self.description}
        return {"kind": self.kind, "template": self.template.source, "bos": self.template.bos, **named}
