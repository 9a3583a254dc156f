"""Every triple of method, task and family: what is supported, and the one sentence for what is not. Made from the registries.

A new method joins by its recipe, a new family by its row and tiny model, a new task by its entry in `JOBS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import tiny
import tiny_encoders
import tiny_seq2seq
import torch
from contract.given import spec
from contract.laws import MODELS, family, kind_of

from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.quantization import has_experts, quantised_loading
from foreword.evaluation.evaluate import Reader
from foreword.methods import BASELINES, METHODS, WRITTEN
from foreword.recipe import Recipe
from foreword.task_kinds import TASK_KINDS
from foreword.tasks.base import Example, Prediction, Task
from foreword.tasks.choice import Choice
from foreword.tasks.classify import Classify
from foreword.tasks.few_shot import FewShot, written
from foreword.tasks.generate import Generate
from foreword.tasks.head_classify import HeadClassify
from foreword.tasks.knowledge_probe import Probe
from foreword.tasks.multilabel import MultiLabel
from foreword.tasks.qa import QA
from foreword.tasks.regress import Regress
from foreword.tasks.seq2seq import Seq2Seq
from foreword.tasks.tag import Tag
from foreword.training.initial_values import task_for_model

SUM = "prefix-tuning+lora"
RECIPES: dict[str, Recipe] = {
    **{method: Recipe.of(spec(method, 3)) for method in METHODS},
    **{name: recipe() for name, recipe in BASELINES.items()},
    SUM: spec("prefix-tuning", 3) + BASELINES["lora"](),
}
NAMES = [name for models in MODELS.values() for name in models]
ONE = {"causal": "llama", "encoder": "bert", "encoder-decoder": "t5"}  # for laws that cost time


@dataclass(frozen=True)
class Job:
    """A task and examples of different lengths, every answer among them."""

    task: Task
    examples: Sequence[Example]


_TEXTS = ("a joy", "a dull mess of a film that goes on", "It was great, it was a joy to watch.", "bad")
_FACTS = [{"subject": text, "answer": "good" if i % 2 else "bad, no"} for i, text in enumerate(_TEXTS)]
_ASKED = [{"question": f"{text}?", "context": f"It was {text}, yes.", "answers": text} for text in _TEXTS]
_CHOICES = [{"question": text, "choices": '["yes", "no, maybe"]', "label": "yes"} for text in _TEXTS]
_TAGS = [{"tokens": text, "tags": " ".join("AB"[len(word) % 2] for word in text.split())} for text in _TEXTS]
_PAIRS = [{"input": text, "output": "good" if i % 2 else "It was bad."} for i, text in enumerate(_TEXTS)]


def _labelled(*labels: str) -> list[Example]:
    return [{"text": text, "label": label} for text, label in zip(_TEXTS, labels, strict=True)]


JOBS: dict[str, Job] = {
    "classify": Job(Classify(("yes", "no, maybe")), _labelled("yes", "no, maybe", "yes", "yes")),
    "classify-head": Job(HeadClassify(("yes", "no")), _labelled("yes", "no", "yes", "no")),
    "multi-label": Job(MultiLabel(("fun", "war")), _labelled("fun", "fun|war", "", "war")),
    "regress": Job(Regress(), _labelled("1", "-2.5", "0", "4")),
    "tag": Job(Tag(("A", "B")), _TAGS),
    "qa": Job(QA(), _ASKED),
    "choice": Job(Choice(), _CHOICES),
    "probe": Job(Probe(("good", "bad, no")), _FACTS),
    "generate": Job(Generate(max_new_tokens=2), _PAIRS),
    "seq2seq": Job(Seq2Seq(num_beams=2, max_new_tokens=2), _PAIRS),
}
HEADED = [kind for kind in TASK_KINDS if TASK_KINDS[kind].answers == "head"]
WORDED = [kind for kind in TASK_KINDS if kind not in HEADED]


def frozen(name: str) -> FrozenModel:
    """A shared tiny model of any kind."""
    return {"causal": tiny, "encoder": tiny_encoders, "encoder-decoder": tiny_seq2seq}[kind_of(name)].frozen(name)


def attempt(method: str, kind: str, name: str) -> None:
    """All that a model, a task and a recipe are asked before anything is trained or read; raises ForewordError for a triple that cannot be."""
    model, task, recipe = frozen(name), JOBS[kind].task, RECIPES[method]
    if recipe.quantize:
        quantised_loading(model.name, model.network.config, recipe.quantize, torch.float32, "cpu")
    if recipe.shots:
        FewShot.of(task, JOBS[kind].examples[:1]).tasks[0].for_model(model.info, None)
    elif method in WRITTEN:
        Reader.plain(model, written(task))
    else:
        task_for_model(task, recipe, model.info)


def why_not(method: str, kind: str, name: str) -> str | None:
    """The sentence that refuses a triple, None for one that is supported."""
    recipe, row, stacks = RECIPES[method], family(name), kind_of(name)
    if recipe.quantize and has_experts(frozen(name).network.config):
        return (
            f"model type '{MODELS[stacks][name][0]}' keeps its experts in tensors that bitsandbytes leaves as they are; "
            "load it without quantize."
        )
    if recipe.prompt and recipe.prompt.site not in row.sites:
        return (
            f"method '{recipe.prompt.method}' puts keys and values before every layer, but {row.title} does not support them: {row.why_not}; "
            "use a method of the input site (prompt-like tables and encoders before the text), or LoRA."
        )
    if kind in HEADED and method in WRITTEN:
        return f"a '{kind}' task has a head, which must be trained; a written prompt can classify by label words, or generate."
    if recipe.shots and kind in ("probe", "seq2seq"):
        return f"a '{kind}' task takes no examples in its prompt; leave few-shot out."
    if kind in HEADED and stacks == "encoder-decoder":
        return (
            f"task '{kind}' needs a model of one stack, but tiny-{name} is an encoder–decoder; "
            "use task 'classify' or 'seq2seq', or an encoder or causal model."
        )
    return _unworded(method, kind, name)


def _unworded(method: str, kind: str, name: str) -> str | None:
    """Why a task whose answers are words is refused."""
    if kind == "seq2seq" and kind_of(name) != "encoder-decoder":
        return (
            f"task 'seq2seq' needs an encoder–decoder, but tiny-{name} has one stack; use task 'generate', or a model such as T5 or BART."
        )
    if kind in WORDED and kind_of(name) == "encoder":
        return f"task '{kind}' needs a model that writes words, but tiny-{name} is an encoder; use a task with a head, or a causal model."
    if kind in WORDED and method == "head-only":
        return f"method 'head-only' trains nothing of task '{kind}', which has no head; evaluate it as it is."
    return None


def supported(*, heads: bool | None = None) -> list[tuple[str, str, str]]:
    """Supported triples of one family for each kind of model, of tasks with or without a head perhaps."""
    kinds = list(TASK_KINDS) if heads is None else HEADED if heads else WORDED
    return [(method, kind, name) for name in ONE.values() for kind in kinds for method in RECIPES if why_not(method, kind, name) is None]


def near(left: Sequence[Prediction], right: Sequence[Prediction]) -> None:
    """The same answers with the same numbers, but for rounding."""
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-4) and one.losses == pytest.approx(other.losses, abs=1e-3)
        assert one.value == (pytest.approx(other.value, abs=1e-3) if isinstance(one.value, float | dict) else other.value)
        assert one.text == other.text or isinstance(one.value, float), "a number as text shows every digit of it"
