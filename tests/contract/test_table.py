"""The table of laws itself: every law in it is tested, and nothing else claims to be one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from contract.laws import MODELS, TABLES, family, holds, law
from transformers import AutoConfig

from foreword.families.registry import FAMILIES
from foreword.families.shape_reader import read_shape
from foreword.methods import METHODS
from foreword.shape import Kind

HERE = Path(__file__).parent
LAW = re.compile(r'^@law\("(\w+)"(?:, "([\w-]+)")?\)', re.MULTILINE)


def test_every_law_has_a_test() -> None:
    found = [pair for path in HERE.glob("test_*.py") for pair in LAW.findall(path.read_text("utf-8"))]
    assert {(key, kind or "causal") for key, kind in found} == {(key, kind) for kind, laws in TABLES.items() for key in laws}


@pytest.mark.parametrize("kind", TABLES)
def test_a_law_runs_over_every_method_and_family(kind: Kind) -> None:
    cases = {tuple(case) for case in law("alone", kind).args[1]}
    assert {method for method, _ in cases} == set(METHODS)
    assert {MODELS[kind][name][0] for _, name in cases} == {model_type for model_type, row in FAMILIES.items() if row.kind == kind}
    assert all(METHODS[method]().site in family(name).sites for method, name in cases)


def test_a_row_is_of_the_kind_its_models_are() -> None:
    for kind, models in MODELS.items():
        for name, (model_type, settings) in models.items():
            config = AutoConfig.for_model(model_type, **settings).to_dict()
            assert read_shape(config).kind == family(name).kind == kind


@pytest.mark.parametrize(
    ("key", "name", "site", "expected"),
    [
        ("alone", "llama", "kv", True),
        ("alone", "deepseek_v3", "kv", False),
        ("alone", "deepseek_v3", "input", True),
        ("compiled", "deepseek_v3", "input", False),
        ("compiled", "llama", "input", True),
        ("compiled", "llama", "kv", False),
        ("windows", "llama", "kv", False),
        ("windows", "phi3", "kv", True),
        ("windows", "bert", "kv", False),
        ("windows", "modernbert", "kv", True),
        ("types", "deberta-v2", "input", True),
        ("types", "deberta-v3", "input", False),
        ("peft", "bert", "input", True),
        ("peft", "bert", "kv", False),
    ],
)
def test_where_laws_hold(key: str, name: str, site: str, expected: bool) -> None:
    assert holds(key, name, site) is expected  # type: ignore[arg-type]
