"""Reading an adapter: predicted text is greedy text, foreign models are refused, batches change nothing."""

from __future__ import annotations

import dataclasses

import pytest
import tiny
import torch

from foreword.adapters.adapter import Adapter
from foreword.adapters.safetensors_file import KEY
from foreword.backbone.batch import collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.errors import DataError, FingerprintError, UsageError
from foreword.evaluation.evaluate import Reader
from foreword.methods import METHODS, recipe
from foreword.prompts import init
from foreword.prompts.template import Template
from foreword.recipe import Recipe
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.template_task import TemplateTask, for_site


def adapter(model: FrozenModel, name: str, task: TemplateTask) -> Adapter:
    spec = recipe(name, length=3)
    fitted = for_site(task, spec)
    first = init.initial_values(spec, model, fitted.material([dict.fromkeys(fitted.columns, "some text")]))
    recipe_ = Recipe.of(spec)
    return Adapter(recipe_, model.shape, {KEY: first.origin}, fitted.to_dict(), model.name, model.fingerprint, model.tokenizer_fingerprint)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_predicted_text_is_plain_greedy_text(name: str, family: str) -> None:
    """Token by token without a cache, one row at a time, against batched prediction."""
    model = tiny.frozen(family)
    reader = Reader.of(model, adapter(model, name, Generate(max_new_tokens=6)))
    examples = [{"input": text} for text in ("a film", "one two three four five six", "x")]
    for example, answer in zip(examples, reader.predict(examples, batch_size=3), strict=True):
        row = reader.task.template.render(example, model.tokenizer, reader.length_budget.soft_tokens)
        found: list[int] = []
        for _ in range(6):
            grown = dataclasses.replace(row, ids=(*row.ids, *found), labels=(), weights=())
            ready = model.prepare(collate([grown]), reader.adapter_state.tokens)
            with torch.no_grad():
                token = int(model.network(**ready.inputs, use_cache=False).logits[0, -1].argmax())
            if token == model.tokenizer.eos:
                break
            found.append(token)
        assert answer.text == model.tokenizer.decode(found).strip()


def test_the_frozen_model_answers_too() -> None:
    model = tiny.frozen("llama")
    reader = Reader.plain(model, Classify(("no", "yes"), template=Template.parse("{text}: {answer}")))
    scores, cut = reader.evaluate([{"text": "a", "label": "no"}, {"text": "b", "label": "yes"}])
    assert set(scores) == {"accuracy", "macro_f1", "loss"} and cut == 0
    with pytest.raises(UsageError) as caught:
        Reader.plain(model, Classify(("no", "yes")))
    assert str(caught.value) == "a written prompt cannot have {soft} tokens; give a template of words and fields only."


def test_another_base_or_tokenizer_is_refused() -> None:
    model = tiny.frozen("llama")
    made = adapter(model, "prompt-tuning", Classify(("no", "yes")))
    for field, what in (("base_fingerprint", "base model"), ("tokenizer_fingerprint", "tokenizer")):
        with pytest.raises(FingerprintError) as caught:
            Reader.of(model, dataclasses.replace(made, **{field: "0" * 16}))
        assert what in str(caught.value) and "0" * 16 in str(caught.value) and getattr(made, field) in str(caught.value)


def test_too_long_texts_leave_room_for_the_answer() -> None:
    model = tiny.frozen("llama")
    reader = Reader.of(model, adapter(model, "prefix-tuning", Generate(max_new_tokens=5)))
    example = {"input": "word " * 400}
    with pytest.raises(DataError, match="shorten it, or pass --truncate"):
        reader.predict([example])
    assert isinstance(reader.predict([example], truncate=True)[0].text, str)
    with pytest.raises(UsageError) as caught:
        list(Reader.of(model, adapter(model, "prompt-tuning", Classify(("no", "yes")))).stream({"text": "x"}))
    assert str(caught.value) == "a 'classify' task has no text to stream; use predict."
