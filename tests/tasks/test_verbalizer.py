"""Words of labels become tokens once a task, however many examples are read with them."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import tiny
import tiny_encoders

from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.tokenizer import TextTokenizer
from foreword.tasks.base import LengthBudget
from foreword.tasks.classify import Classify
from foreword.tasks.evaluation_loop import EvalSet, evaluate
from foreword.tasks.knowledge_probe import Probe
from foreword.tasks.template_task import TemplateTask

NAMES = tuple(f"kind {i}" for i in range(12))
MAKERS: dict[str, Callable[[], TemplateTask]] = {
    "classify": lambda: Classify(NAMES, "{text}: {answer}"),
    "words": lambda: Classify([f"label {i}" for i in range(12)], "{text}: {answer}", words=NAMES),
    "probe": lambda: Probe(NAMES, "{text}: {answer}"),
}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each text was tokenized."""
    counted: Counter[str] = Counter()
    pieces = TextTokenizer._tokenized

    def counting(self: TextTokenizer, text: str) -> object:
        counted[text] += 1
        return pieces(self, text)

    monkeypatch.setattr(TextTokenizer, "_tokenized", counting)
    return counted


@pytest.mark.parametrize("name", MAKERS)
def test_answers_are_tokenized_once(name: str, read: Counter[str]) -> None:
    task, model, budget = MAKERS[name](), tiny.frozen("llama"), LengthBudget(0, 128)
    known = task.labels if isinstance(task, Classify) else NAMES
    examples = [{"text": f"film {i}", task.target: known[i % 12]} for i in range(30)]
    for example in examples:
        task.train_features(example, model.info, budget)
    evaluate(task, model, AdapterState(), EvalSet.prepare(task, model.info, budget, examples, truncate=False), batch_size=4)
    assert {text: read[f" {text}"] for text in NAMES} == dict.fromkeys(NAMES, 1)


def test_another_tokenizer_has_tokens_of_its_own() -> None:
    task, models = Classify(("good", "bad"), "{text} is {answer}"), [tiny.frozen("llama"), tiny_encoders.frozen("bert")]
    for model in (*models, *models):
        expected = [model.tokenizer.answer(f" {label}") for label in task.labels]
        assert [task.answer({"label": label}, model.info) for label in task.labels] == expected == task.answer_ids(model.info)
    assert task.answer_ids(models[0].info) != task.answer_ids(models[1].info)


@pytest.mark.parametrize("name", MAKERS)
def test_what_was_tokenized_is_no_part_of_the_task(name: str, read: Counter[str]) -> None:
    task, model = MAKERS[name](), tiny.frozen("llama")
    fresh = MAKERS[name]()
    task.answer({task.target: task.labels[0] if isinstance(task, Classify) else NAMES[0]}, model.info)
    assert task == fresh and repr(task) == repr(fresh) and task.to_dict() == fresh.to_dict() and hash(task) == hash(fresh)
    once = read[" kind 3"]
    for other in (replace(task, description="d"), copy.deepcopy(task), pickle.loads(pickle.dumps(task))):  # type: ignore[type-var]
        other.answer({task.target: task.labels[0] if isinstance(task, Classify) else NAMES[0]}, model.info)
    assert read[" kind 3"] == once + 3, "a copy of a task finds its own"
