"""Classification through label words: the label whose words the model finds likeliest, length-normalised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.model_info import ModelInfo
from foreword.errors import UsageError
from foreword.prompts.init import Material
from foreword.prompts.template import Row, Template
from foreword.prompts.tokens import VirtualTokens
from foreword.tasks.base import EvalFeature, Example, Prediction
from foreword.tasks.conversation import LAST_USER, check_conversation
from foreword.tasks.conversation import to_dict as conversation_to_dict
from foreword.tasks.labels import check_labels, index_of, labels_in
from foreword.tasks.metrics import base as metrics
from foreword.tasks.metrics.base import Score
from foreword.tasks.metrics.label_metrics import macro_f1
from foreword.tasks.template_task import TemplateTask, parsed
from foreword.tasks.text_pairs import has_second_text
from foreword.tasks.verbalizer import AnswerTokens, candidate_scores


@final
@dataclass(frozen=True, init=False)
class Classify(TemplateTask):
    """Score(label) = mean log p(word pieces | text); `words` gives labels other words; `prior` [labels] is subtracted (Zhao et al. 2021, arXiv:2102.09690)."""

    labels: tuple[str, ...]
    template: Template = Template.parse("{soft}{text}\nLabel: {answer}")
    words: tuple[str, ...] = ()
    prior: tuple[float, ...] = ()
    description: str = ""
    conversation: str = LAST_USER
    tokens: AnswerTokens = field(init=False, repr=False, compare=False)
    kind: ClassVar[str] = "classify"
    metric: ClassVar[str] = "accuracy"
    target: ClassVar[str] = "label"
    takes_shots: ClassVar[bool] = True
    has_prior: ClassVar[bool] = True

    def __init__(
        self,
        labels: Sequence[str],
        template: Template | str = template,
        words: Sequence[str] = (),
        prior: Sequence[float] = (),
        description: str = "",
        conversation: str = LAST_USER,
    ) -> None:
        given = {"labels": tuple(labels), "template": parsed(template), "words": tuple(words), "prior": tuple(prior)}
        for name, value in {**given, "description": description, "conversation": conversation}.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "tokens", AnswerTokens())
        check_labels(self.labels)
        check_conversation(conversation, self.columns)
        if self.words and len(self.words) != len(self.labels):
            raise UsageError(f"{len(self.words)} label words came for {len(self.labels)} labels; give one word for each.")

    @classmethod
    def of(cls, examples: Sequence[Example], **settings: Any) -> Classify:
        """The task with every label of the examples, sorted; raises UsageError where they have a second text that the template does not read."""
        task = cls(labels_in(examples, cls.target), **settings)
        if has_second_text(examples) and "text_b" not in task.columns:
            raise UsageError(
                "the examples have two texts, text and text_b, but the template reads only one; put {text_b} into --template, or use --task classify-head."
            )
        return task

    @property
    def classes(self) -> tuple[str, ...]:
        return self.labels

    def shot_answer(self, example: Example) -> str:
        label = example[self.target]
        return self.words[self.labels.index(label)] if self.words else label

    def answer_ids(self, info: ModelInfo) -> list[list[int]]:
        """Token ids of each label's words, read behind the template's last words; raises UsageError when two labels read the same."""
        return self.tokens.of(info.tokenizer, lambda: self._tokenized(info))

    def _tokenized(self, info: ModelInfo) -> list[list[int]]:
        encode = info.tokenizer.answer
        found = [encode(self.template.space + word) for word in (self.words or self.labels)]
        if len({tuple(ids) for ids in found}) != len(found) or not all(found):
            raise UsageError(
                f"label words {', '.join(self.words or self.labels)} are not distinct tokens for {info.name}; give other words."
            )
        return found

    def answer(self, example: Example, info: ModelInfo) -> list[int]:
        label = index_of(example.get(self.target), self.labels)
        return self.answer_ids(info)[label]

    def predict(
        self, model: FrozenModel, adapter_state: AdapterState, eval_features: Sequence[EvalFeature], batch_size: int
    ) -> Iterator[Prediction]:
        rows = [eval_feature.rows[0] for eval_feature in eval_features]
        for begin in range(0, len(rows), batch_size):
            logits = self.scores(model, adapter_state.tokens, rows[begin : begin + batch_size])
            losses = -logits - torch.tensor(self.prior or (0.0,) * len(self.labels))
            for scores, costs in zip(logits.softmax(1).tolist(), losses.tolist(), strict=True):
                best = max(range(len(scores)), key=scores.__getitem__)
                yield Prediction(self.labels[best], dict(zip(self.labels, scores, strict=True)), dict(zip(self.labels, costs, strict=True)))

    def scores(self, model: FrozenModel, tokens: VirtualTokens | None, rows: Sequence[Row]) -> Float[Tensor, "B C"]:
        """Length-normalised log-probability of each label's words, less the prior."""
        prior = torch.tensor(self.prior or (0.0,) * len(self.labels))
        return candidate_scores(model, tokens, rows, self.answer_ids(model.info)) - prior

    def calibrated(self, model: FrozenModel, tokens: VirtualTokens | None, soft: int) -> Classify:
        """This task with the prior measured on content-free texts."""
        rows = [self.template.render(dict.fromkeys(self.columns, text), model.tokenizer, soft) for text in ("", "N/A", "[MASK]")]
        plain = replace(self, prior=())
        prior = plain.scores(model, tokens, rows).softmax(1).mean(0).log()
        return replace(self, prior=tuple(prior.tolist()))

    def score(self, predictions: Sequence[Prediction], targets: Sequence[str]) -> dict[str, Score]:
        predicted = [p.text for p in predictions]
        return {"accuracy": metrics.accuracy(predicted, targets), "macro_f1": macro_f1(predicted, targets)}

    def material(self, examples: Sequence[Example]) -> Material:
        text = self.description or f"Classify the text as {', '.join(self.labels[:-1])} or {self.labels[-1]}."
        texts = tuple(" ".join(example[name] for name in self.columns) for example in examples)
        return Material(text, tuple(self.template.space + word for word in (self.words or self.labels)), texts)

    def with_template(self, template: Template) -> Classify:
        return replace(self, template=template)

    def to_dict(self) -> dict[str, Any]:
        named = {"labels": list(self.labels), "words": list(self.words), "prior": list(self.prior), "description": self.description}
        return {
            "kind": self.kind,
            "template": self.template.source,
            "bos": self.template.bos,
            **named,
            **conversation_to_dict(self.conversation),
        }
