"""The laws and where each holds: the one table that the contract tests run over and that the README's support matrix is made from.

A new family joins by a row in `foreword/backbone/families.py` and a config in `tests/tiny.py`; a new method by its recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
import tiny

from foreword.backbone.families import FAMILIES, Family
from foreword.methods import METHODS
from foreword.specs import Site


@dataclass(frozen=True)
class Law:
    """One sentence that must be true. `sites` it speaks of; `sliding` if it is about sliding windows only; `needs_kv` if it makes a kv prefix.

    `broken` names families where it cannot hold, with the reason.
    """

    sentence: str
    sites: tuple[Site, ...] = ("input", "kv")
    sliding: bool = False
    needs_kv: bool = False
    broken: Mapping[str, str] = field(default_factory=dict)


LAWS: dict[str, Law] = {
    "aligned": Law("outputs stand at the caller's own tokens, and equal what transformers gives for the same numbers put in by hand"),
    "alone": Law("a row alone = padded left = padded right = mixed with other methods, lengths and placements in one batch"),
    "windows": Law(
        "beyond a sliding window a prefix fades as the model's own tokens do, or stays when it is pinned", ("kv",), sliding=True
    ),
    "baked": Law("a prompt without its re-parameterisation = with it"),
    "compiled": Law("a leading prompt compiled to keys and values = the prompt itself", ("input",), needs_kv=True),
    "predicting": Law("logits for label positions only = the same positions of all logits"),
    "generated": Law("generation in a batch = one by one = without a cache, and transformers' own where there is no prompt"),
    "checkpointed": Law("gradients with gradient checkpointing = without"),
    "frozen": Law("training leaves every weight of the base model bit-identical"),
    "threads": Law("two threads with different prompts on one model do not meet"),
    "peft": Law("the same numbers in PEFT give the same logits"),
}


def family(name: str) -> Family:
    """The family of a tiny model."""
    return FAMILIES[tiny.TINY[name][0]]


def holds(law: str, name: str, site: Site) -> bool:
    """Whether a law is promised, and therefore tested, for a tiny model at a site."""
    rule, row = LAWS[law], family(name)
    slides = "sliding_window" in tiny.TINY[name][1]
    return (
        site in row.sites
        and site in rule.sites
        and (slides or not rule.sliding)
        and ("kv" in row.sites or not rule.needs_kv)
        and tiny.TINY[name][0] not in rule.broken
    )


def law(key: str) -> pytest.MarkDecorator:
    """Run a test over every method × tiny model for which a law is promised."""
    cases = [(method, name) for name in tiny.TINY for method, recipe in METHODS.items() if holds(key, name, recipe().site)]
    return pytest.mark.parametrize(("method", "name"), cases, ids=[f"{name}-{method}" for method, name in cases])
