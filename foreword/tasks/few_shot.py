"""Written prompts, the baselines that train nothing: the task's template without soft tokens, alone or with examples before the text."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.model_info import ModelInfo
from foreword.errors import DataError, UsageError
from foreword.prompts.template import ANSWER, Bos, Field, Part, Template, Words
from foreword.tasks.base import EvalFeature, Example, LengthBudget, Task
from foreword.tasks.classify import Classify
from foreword.tasks.data.row_origin import map_rows
from foreword.tasks.evaluation_loop import EvalSet
from foreword.tasks.template_task import TemplateTask

Chat = Callable[[str], str]
BETWEEN = "\n\n"  # between two examples
CONTENT_FREE = ("", "N/A", "[MASK]")


def written(task: Task, words: str | None = None) -> TemplateTask:
    """The task read through a written prompt: `words`, a template, or its own one without soft tokens, behind its description if it has one.

    Raises UsageError for a task with a head, which must be trained, and for soft tokens in `words`.
    """
    plain, opening = _plain(task, words)
    return _read(plain, opening, None)


@final
@dataclass(frozen=True)
class FewShot:
    """A written prompt with `shots` before the text, written as the text is, with their answers; as many of them as fit with it (Brown et al. 2020).

    `tasks[k]` reads a text behind the first k shots. A shot's texts are fields, so that nothing in them can become a special token.
    """

    tasks: tuple[TemplateTask, ...]
    values: dict[str, str]

    @classmethod
    def of(cls, task: Task, shots: Sequence[Example], *, words: str | None = None, chat: Chat | None = None) -> FewShot:
        """`words` as in `written`; `chat` lays a template's source out in a model's chat format, the shots inside the message.

        Raises UsageError for tasks whose answer is not one text.
        """
        plain, opening = _plain(task, words)
        if not plain.takes_shots:
            raise UsageError(f"a '{task.kind}' task takes no examples in its prompt; leave few-shot out.")
        mark = "shot"
        while any(field.startswith(mark) for field in plain.columns):
            mark += "_"
        values: dict[str, str] = {}
        parts = list(opening)
        tasks = [_read(plain, parts, chat)]
        for number, shot in enumerate(shots, 1):
            named = {**{name: shot[name] for name in plain.columns}, ANSWER: plain.shot_answer(shot)}
            values |= {f"{mark}{number}_{name}": value for name, value in named.items()}
            parts += _shot(plain.template, f"{mark}{number}_")
            tasks.append(_read(plain, parts, chat))
        return cls(tuple(tasks), values)

    def eval_feature(
        self, example: Example, info: ModelInfo, length_budget: LengthBudget, *, max_answer_tokens: int | None = None
    ) -> tuple[EvalFeature, bool, int]:
        """The eval feature, whether its text was cut (with no shots left), and how many shots stand before it."""
        task, count = self._fitting(
            example, info, length_budget, self.tasks[0].max_answer_tokens if max_answer_tokens is None else max_answer_tokens
        )
        eval_feature, cut = task.eval_feature(
            self._filled(example), info, self._budget(info, length_budget, count), truncate=True, max_answer_tokens=max_answer_tokens
        )
        return eval_feature, cut, count

    def eval_set(self, info: ModelInfo, length_budget: LengthBudget, examples: Sequence[Example]) -> tuple[EvalSet, int]:
        """The examples as they are evaluated, and for how many of them not every shot fits."""
        plain = self.tasks[0]
        max_answer_tokens = max(map_rows(examples, lambda example: plain.answer_length(example, info)), default=0)
        asked = map_rows(examples, lambda example: self.eval_feature(example, info, length_budget, max_answer_tokens=max_answer_tokens))
        answered = [
            self.tasks[count].train_features(self._filled(example), info, self._budget(info, length_budget, count))[0]
            for example, (_, _, count) in zip(examples, asked, strict=True)
        ]
        eval_set = EvalSet(
            [eval_feature for eval_feature, _, _ in asked],
            [train_feature for train_features in answered for train_feature in train_features],
            [len(train_features) for train_features in answered],
            [example[plain.target] for example in examples],
            sum(cut for _, cut, _ in asked),
        )
        return eval_set, sum(count < len(self.tasks) - 1 for _, _, count in asked)

    def calibrated(self, model: FrozenModel, length_budget: LengthBudget) -> FewShot:
        """With the prior of labels measured on content-free texts behind all shots that fit; unchanged where there are no labels."""
        plain = self.tasks[0]
        if not isinstance(plain, Classify):
            return self
        texts = [dict.fromkeys(plain.columns, text) for text in CONTENT_FREE]
        rows = [self.eval_feature(text, model.info, length_budget)[0].rows[0] for text in texts]
        prior = tuple(plain.scores(model, None, rows).softmax(1).mean(0).log().tolist())
        return replace(self, tasks=tuple(replace(task, prior=prior) for task in self.tasks if isinstance(task, Classify)))

    def _fitting(self, example: Example, info: ModelInfo, length_budget: LengthBudget, max_answer_tokens: int) -> tuple[TemplateTask, int]:
        """The task with the most shots that needs no truncation of the text. `length_budget` limits the text, the model's positions limit both together."""
        max_answer_tokens = 0 if info.shape.kind == "encoder-decoder" else max_answer_tokens  # there the answer is in the decoder
        filled = self._filled(example)
        sizes = [task.template.render(filled, info.tokenizer, 0).num_tokens + max_answer_tokens for task in self.tasks]
        fitting = [count for count, size in enumerate(sizes) if size <= info.shape.positions]
        count = max(fitting, default=0) if sizes[0] <= length_budget.max_tokens else 0
        return self.tasks[count], count

    @staticmethod
    def _budget(info: ModelInfo, length_budget: LengthBudget, count: int) -> LengthBudget:
        return LengthBudget(0, info.shape.positions) if count else length_budget

    def _filled(self, example: Example) -> dict[str, str]:
        return {**example, **self.values}


def choose(task: Task, examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """`count` training examples, a function of the seed: with labels, any first k of them hold every label about equally often.

    Raises DataError where there are fewer examples.
    """
    if count > len(examples):
        raise DataError(
            f"{count} examples were asked for in the prompt, but there are only {len(examples)}; ask for fewer, or add examples."
        )
    chance = random.Random(seed)
    pool = list(examples)
    chance.shuffle(pool)
    if not task.classes:
        return pool[:count]
    piles = {label: [example for example in pool if example[task.target] == label] for label in task.classes}
    found: list[Example] = []
    while len(found) < count:
        turn = [label for label in task.classes if piles[label]]
        chance.shuffle(turn)
        found += [piles[label].pop() for label in turn]
    return found[:count]


def _plain(task: Task, words: str | None) -> tuple[TemplateTask, list[Part]]:
    """The task with a written prompt, and the description before all texts."""
    if not isinstance(task, TemplateTask):
        raise UsageError(
            f"a '{task.kind}' task has a head, which must be trained; a written prompt can classify by label words, or generate."
        )
    if words is None:
        described = str(task.to_dict().get("description") or "")
        return task, [Words(described + BETWEEN)] if described else []
    template = Template.parse(words)
    if template.has_soft:
        raise UsageError(f"the written prompt '{words}' has soft tokens, which only a trained prompt has; use words and fields only.")
    return task.with_template(template), []


def _read(task: TemplateTask, first: Sequence[Part], chat: Chat | None) -> TemplateTask:
    """The task with more parts before its text."""
    source = _source(task.template, first)
    return task.with_template(Template.parse(chat(source) if chat else source, bos=chat is not None or task.template.bos))


def _shot(template: Template, mark: str) -> list[Part]:
    """The template's words with an example's fields, its answer and the separator."""
    own = [Field(mark + part.name) if isinstance(part, Field) else part for part in template.parts if isinstance(part, Field | Words)]
    return [*own, Words(template.space), Field(mark + ANSWER), Words(BETWEEN)]


def _source(template: Template, first: Sequence[Part] = ()) -> str:
    """A template as text again, with more parts before it and without soft tokens; reading it puts the beginning-of-sequence token first again."""
    parts = list(template.parts)
    if parts[:1] == [Bos()]:
        parts.pop(0)
    text = ""
    for part in (*first, *parts):
        if isinstance(part, Words):
            text += part.text.replace("{", "{{").replace("}", "}}")
        elif isinstance(part, Field):
            text += "{" + part.name + "}"
        elif part == Bos():
            text += "{bos}"
    return text + template.space + "{answer}"
