"""Law: compiled. A leading prompt, with BOS and words between its soft tokens, equals the keys and values compiled from it."""

from __future__ import annotations

import pytest
import tiny
import torch
from contract.given import TOLERANCE, distance, tokens
from contract.laws import law

from foreword.backbone.batch import collate
from foreword.backbone.prompt_to_kv import compile_prompt, without_head
from foreword.errors import ModelError
from foreword.prompts.template import Template
from foreword.prompts.tokens import EmbeddingPrefix

LENGTH = 9  # more than the models' windows
TEMPLATES = {
    "behind BOS": Template.parse("{soft}{text} It was {answer}"),
    "before BOS": Template.parse("{soft}{bos}{text}{answer}"),
    "without BOS": Template.parse("{soft}{text}{answer}", bos=False),
    "among words": Template.parse("The {soft:2}capital of{soft:3} France{soft} is: {text} The answer: {answer}"),
}
TEXTS = ("a joy", "a dull mess of a film that goes on and on, and on, and on")


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@law("compiled")
def test_compiled_equals_uncompiled(method: str, name: str, template: Template) -> None:
    model, read = tiny.frozen(name), tokens(name, method, LENGTH)
    assert isinstance(read, EmbeddingPrefix) and template.leading
    answer = model.tokenizer.encode(" great")
    rows = [template.render({"text": text}, model.tokenizer, LENGTH, answer) for text in TEXTS]
    compiled, swallowed = compile_prompt(model, read, rows[0])
    assert compiled.length == LENGTH + swallowed
    rest = [without_head(row, swallowed) for row in rows]
    assert [row.ids for row in rest] == [row.ids[swallowed:] for row in rows]
    assert [row.labels for row in rest] == [row.labels[swallowed:] for row in rows]
    with torch.no_grad():
        whole, short = collate(rows), collate(rest)
        ours, truth = model.forward(short, compiled), model.forward(whole, read)[:, swallowed:]
        assert distance(ours[short.mask], truth[short.mask]) < TOLERANCE
        ours, truth = (model.predicting(x, y, x.labels >= 0) for x, y in ((short, compiled), (whole, read)))
        assert distance(ours, truth) < TOLERANCE


def test_latent_attention_is_refused() -> None:
    model, read = tiny.frozen("deepseek_v3"), tokens("deepseek_v3", "prompt-tuning")
    row = Template.parse("{soft}{text}{answer}").render({"text": "a joy"}, model.tokenizer, 4)
    assert isinstance(read, EmbeddingPrefix)
    with pytest.raises(ModelError) as caught:
        compile_prompt(model, read, row)
    assert str(caught.value) == (
        "a prompt of DeepSeek-V3 cannot be converted to keys and values: its latent attention keeps no keys and values per head; use the prompt as it is."
    )
