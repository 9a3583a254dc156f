"""Tagging: a label for each word, by a head on the state of one of its tokens. Entities where the labels mark some, else plain tags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from foreword.backbone.model_info import ModelInfo
from foreword.backbone.token_alignment import Encoded
from foreword.errors import DataError, UsageError
from foreword.prompts.head import Head, HeadSpec
from foreword.prompts.init import Material
from foreword.prompts.template import Row
from foreword.specs import PromptSpec
from foreword.tasks.base import EvalFeature, Example, LengthBudget, Losses, Prediction, Task, TrainFeature
from foreword.tasks.data.bio_tags import Scheme, repaired, scheme_of
from foreword.tasks.data.list_cells import excerpt, words
from foreword.tasks.data.row_origin import map_rows
from foreword.tasks.head_task import HeadInputs, HeadTask, check_fits, row_of
from foreword.tasks.metrics.base import Score
from foreword.tasks.metrics.tag_metrics import entity_scores, token_accuracy
from foreword.tasks.text_pairs import ENDLESS

_PIECES = ("auto", "first", "last")
NOT_READ = "?"  # the tag of a word that did not fit


@final
@dataclass(frozen=True)
class Tag(HeadTask):
    """p(tag | word) = softmax(W·state + b) at one token of each word: its `piece`, the first on encoders, the last, which has read it all, on causal models.

    Labels such as B-PER and I-PER mark entities (IOB1, IOB2, IOBES, BILOU): tags are repaired so that each entity is well formed, and scored as
    entities. Other labels (parts of speech) stand for themselves.
    """

    labels: Sequence[str]
    piece: str = "auto"
    description: str = ""
    kind: ClassVar[str] = "tag"
    target: ClassVar[str] = "tags"

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise DataError(
                f"tags {', '.join(self.labels) or 'none'} came, but a tagger needs at least two different ones; check the tags column."
            )
        if self.piece not in _PIECES:
            raise UsageError(f"piece '{self.piece}' is not known; choose one of {', '.join(_PIECES)}.")

    @classmethod
    def of(cls, examples: Sequence[Example], **settings: Any) -> Tag:
        """The task with every tag of the examples, sorted, "O" first; entities as `repaired` writes them."""
        sentences = map_rows(examples, tags_of)
        found = {tag for tags in sentences for tag in tags}
        scheme = scheme_of(sorted(found))
        if scheme:
            found = {"O"} | {tag for tags in sentences for tag in repaired(tags, scheme)}
        return cls(tuple(sorted(found, key=lambda tag: (tag != "O", tag))), **settings)

    @property
    def metric(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]  which one people read first depends on the labels
        return "entity_f1" if self.scheme else "token_accuracy"

    @property
    def scheme(self) -> Scheme | None:
        return scheme_of(self.labels)

    @property
    def columns(self) -> tuple[str, ...]:
        return ("tokens",)

    @property
    def head(self) -> HeadSpec:
        return HeadSpec(len(self.labels))

    def for_model(self, info: ModelInfo, spec: PromptSpec | None) -> Task:
        super().for_model(info, spec)
        return replace(self, piece="last" if info.shape.kind == "causal" else "first") if self.piece == "auto" else self

    def train_features(
        self, example: Example, info: ModelInfo, length_budget: LengthBudget, dampening: float = 0.0
    ) -> tuple[list[TrainFeature], bool]:
        tags = self._mended(tags_of(example))
        for tag in tags:
            if tag not in self.labels:
                raise DataError(f"tag '{tag}' is not one of {', '.join(self.labels)}; correct the data, or train with this tag.")
        row, read, cut = self._row(example, info, length_budget, [self.labels.index(tag) for tag in tags])
        return [TrainFeature((row,), weight=float(read))], cut

    def eval_feature(
        self, example: Example, info: ModelInfo, length_budget: LengthBudget, *, truncate: bool, max_answer_tokens: int | None = None
    ) -> tuple[EvalFeature, bool]:
        count = len(words(example, "tokens"))
        row, read, cut = self._row(example, info, length_budget, [0] * count)
        if cut and not truncate:
            full = info.tokenizer.words(words(example, "tokens"), ENDLESS)
            check_fits(replace(full, cut=True), len(full.ids), info, length_budget, truncate=False)
        return EvalFeature((row,), (read, count)), cut

    def _row(self, example: Example, info: ModelInfo, length_budget: LengthBudget, classes: Sequence[int]) -> tuple[Row, int, bool]:
        """The sentence with the class of each word at its piece, how many words it has of them all, and whether it was cut."""
        tokens = words(example, "tokens")
        encoded = info.tokenizer.words(tokens, length_budget.max_tokens - length_budget.soft_tokens)
        places = self._places(encoded)
        read = max(places, default=-1) + 1
        for index in range(read if encoded.cut else len(tokens)):
            if index not in places:
                raise DataError(
                    f"word {index + 1} of '{excerpt(' '.join(tokens))}' is '{tokens[index]}', which has no token of its own for {info.name}; replace it, or join it with the next."
                )
        labels = [-100] * len(encoded.ids)
        for index, place in places.items():
            labels[place] = classes[index]
        return row_of(encoded, info, length_budget, labels), read, encoded.cut

    def _places(self, encoded: Encoded) -> dict[int, int]:
        """The position of each word's piece."""
        places: dict[int, int] = {}
        for place, (text, (word, _)) in enumerate(zip(encoded.text, encoded.spans, strict=True)):
            if text == 0 and (self.piece == "last" or word not in places):
                places[word] = place
        return places

    def _mended(self, tags: Sequence[str]) -> list[str]:
        """Tags in this task's scheme; other tags are unchanged, to be named in an error."""
        if self.scheme is None or scheme_of([*tags, "B-X"]) is None:
            return list(tags)
        return repaired(tags, self.scheme)

    def head_losses(self, head: Head, train_features: Sequence[TrainFeature], inputs: HeadInputs) -> Losses:
        logits, classes, sizes = _at_words(head, inputs)
        found = torch.nn.functional.cross_entropy(logits, classes, reduction="none")
        return Losses(found, torch.ones_like(found), sizes)

    def head_predictions(self, head: Head, eval_features: Sequence[EvalFeature], inputs: HeadInputs) -> list[Prediction]:
        logits, _, sizes = _at_words(head, inputs)
        predictions = []
        for eval_feature, best in zip(eval_features, logits.argmax(1).cpu().split(sizes), strict=True):
            read, count = eval_feature.notes
            tags = self._mended([self.labels[int(index)] for index in best.tolist()]) + [NOT_READ] * (count - read)
            predictions.append(Prediction(" ".join(tags), value=tags))
        return predictions

    def score(self, predictions: Sequence[Prediction], targets: Sequence[str]) -> dict[str, Score]:
        """Words that were not read count as wrong."""
        meant = [self._mended(words({"tags": text}, "tags")) for text in targets]
        found = {"token_accuracy": token_accuracy([p.value for p in predictions], meant)}
        if not self.scheme:
            return found
        return entity_scores([["O" if tag == NOT_READ else tag for tag in p.value] for p in predictions], meant) | found

    def material(self, examples: Sequence[Example]) -> Material:
        text = self.description or f"Tag each word as {', '.join(self.labels[:-1])} or {self.labels[-1]}."
        return Material(text, tuple(self.labels), tuple(" ".join(words(example, "tokens")) for example in examples))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self), "labels": list(self.labels)}


def tags_of(example: Example) -> list[str]:
    """The tags of an example; raises DataError unless each word has one."""
    tokens, tags = words(example, "tokens"), words(example, "tags")
    if len(tokens) != len(tags):
        raise DataError(f"'{excerpt(' '.join(tokens))}' has {len(tokens)} words but {len(tags)} tags; give each word one tag.")
    return tags


def _at_words(head: Head, inputs: HeadInputs) -> tuple[Float[Tensor, "M C"], Int[Tensor, " M"], list[int]]:
    """The head's logits at each labelled token, its class, and the number of such tokens per row."""
    select = inputs.labels >= 0
    return head(inputs.states[select]), inputs.labels[select], select.sum(1).tolist()
