"""A new family is one record: this test adds the one of docs/adding.md, touches nothing else, and holds it to the laws."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
import tiny
from contract import (
    test_aligned,
    test_alone,
    test_baked,
    test_checkpointed,
    test_compiled,
    test_frozen,
    test_generated,
    test_peft,
    test_threads,
)
from contract.laws import MODELS
from families.renamed_llama import OwnMLP

import foreword as fw
from foreword.advisor.architecture import read_architecture
from foreword.backbone.weights.lora_layers import target_layers
from foreword.errors import ModelError
from foreword.families.base import Family
from foreword.families.registry import FAMILIES
from foreword.methods import METHODS
from foreword.recipe import LoraSpec

ROOT = Path(__file__).resolve().parents[2]
NAME = "renamed_llama"


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """The family of docs/adding.md, and a tiny config for the laws; both gone afterwards."""
    page = (ROOT / "docs/adding.md").read_text("utf-8")
    found = re.search(r"<!-- family:start -->\n```python\n(.*?)```", page, re.DOTALL)
    assert found is not None
    records: dict[str, Family] = {}
    exec(found[1], {"FAMILIES": records, "Family": Family})
    for model_type, record in records.items():
        monkeypatch.setitem(FAMILIES, model_type, record)
    for models in (tiny.TINY, MODELS["causal"]):
        monkeypatch.setitem(models, NAME, (NAME, tiny.TINY["llama-grouped"][1]))


def test_without_its_record_it_is_refused() -> None:
    with pytest.raises(ModelError, match="model type 'renamed_llama' is not supported"):
        fw.wrap(tiny.AutoModelForCausalLM.from_config(tiny.AutoConfig.for_model(NAME, **tiny.TINY["llama"][1])), tiny.tokenizer())


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks by the old name
@pytest.mark.parametrize("method", METHODS)
def test_it_keeps_the_laws(method: str, added: None) -> None:
    test_aligned.test_outputs_stand_at_the_text_and_equal_transformers(method, NAME)
    test_aligned.test_label_positions_alone_equal_all_logits(method, NAME)
    test_alone.test_one_prompt_for_all_rows_equals_the_same_prompt_per_row(method, NAME)
    test_alone.test_a_row_does_not_see_its_neighbours(method=method, name=NAME)
    test_baked.test_baked_equals_unbaked(method, NAME)
    test_checkpointed.test_gradients_with_checkpointing_equal_those_without(method, NAME)
    test_frozen.test_training_leaves_the_base_model_bit_identical(method, NAME)
    test_generated.test_generation_in_a_batch_is_greedy_for_every_row(method, NAME)
    test_threads.test_threads_do_not_meet(method, NAME)
    test_peft.test_peft_says_the_same(method, NAME)
    if METHODS[method]().site == "input":
        for template in test_compiled.TEMPLATES.values():
            test_compiled.test_compiled_equals_uncompiled(method, NAME, template)


def test_its_record_is_read_everywhere(added: None, tmp_path: Path) -> None:
    model = tiny.build(NAME)
    assert sum(isinstance(module, OwnMLP) for module in model.network.modules()) == 3, "the override is in place"
    targets = target_layers(model.network, LoraSpec(), NAME)
    assert {path.rpartition(".")[2] for path in targets} == {"wq", "wv"} and len(targets) == 6
    config = json.loads(model.network.config.to_json_string())
    sized = read_architecture(config)
    assert sized.known and sized.parameters == sum(p.numel() for p in model.network.parameters())
    task, rows = fw.Classify(("bad", "good")), [{"text": "a joy", "label": "good"}, {"text": "a mess", "label": "bad"}]
    recipe = fw.prefix_tuning(2, hidden=8) + fw.lora(2)
    fw.fit(model, recipe, task, rows, rows, fw.TrainPlan(steps=2, tracker="none"), out=tmp_path / "a")
    before = fw.Reader.of(model, fw.Adapter.load(tmp_path / "a")).predict(rows)
    model.network.save_pretrained(tmp_path / "base")
    model.tokenizer.inner.save_pretrained(tmp_path / "base")
    loaded = fw.load(tmp_path / "base", device="cpu")
    assert [found.scores for found in fw.Reader.of(loaded, fw.Adapter.load(tmp_path / "a")).predict(rows)] == [p.scores for p in before]


def test_no_family_is_named_outside_its_record() -> None:
    """A model type as a whole string, in code."""
    homes = (
        "foreword/families/",
        "foreword/backbone/family_overrides/",
        "foreword/cli/support/config_reader.py",
    )  # the last: plain numbers, read as a Llama's
    named = [
        f"{path.relative_to(ROOT)}: {node.value}"
        for path in sorted((ROOT / "foreword").rglob("*.py"))
        if not path.relative_to(ROOT).as_posix().startswith(homes)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and node.value in FAMILIES
    ]
    assert named == []
