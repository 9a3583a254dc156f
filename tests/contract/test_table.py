"""The table of laws itself: every law in it is tested, and nothing else claims to be one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tiny
from contract.laws import LAWS, family, holds, law

from foreword.backbone.families import FAMILIES
from foreword.methods import METHODS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def test_every_law_has_a_test() -> None:
    used = {key for path in HERE.glob("test_*.py") for key in re.findall(r'^@law\("(\w+)"\)', path.read_text("utf-8"), re.MULTILINE)}
    assert used == set(LAWS)


def test_a_law_runs_over_every_method_and_family() -> None:
    cases = {tuple(case) for case in law("alone").args[1]}
    assert {method for method, _ in cases} == set(METHODS)
    assert {tiny.TINY[name][0] for _, name in cases} == set(FAMILIES)
    assert all(METHODS[method]().site in family(name).sites for method, name in cases)


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
    ],
)
def test_where_laws_hold(key: str, name: str, site: str, expected: bool) -> None:
    assert holds(key, name, site) is expected  # type: ignore[arg-type]
