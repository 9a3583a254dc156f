"""The laws and where each holds: the one table that the contract tests run over and that the README's support matrix is made from.

A new family joins by a row in `foreword/families/registry.py` and a config in `tests/tiny.py`, `tests/tiny_encoders.py` or
`tests/tiny_seq2seq.py`; a new method by its recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import tiny
import tiny_encoders
import tiny_seq2seq

from foreword.families.registry import FAMILIES, Family
from foreword.methods import METHODS
from foreword.shape import Kind
from foreword.specs import Site


@dataclass(frozen=True)
class Law:
    """One sentence that must be true. `sites` it speaks of; `sliding` if it is about sliding windows only; `typed` if about token types only;
    `needs_kv` if it makes a kv prefix.

    `broken` names families where it cannot hold, with the reason.
    """

    sentence: str
    sites: tuple[Site, ...] = ("input", "kv")
    sliding: bool = False
    typed: bool = False
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
    "observed": Law("observers see the weights that make every attention's output, and change no output"),
    "masked": Law("a masked virtual token = a prefix without it, at the same positions; all masked = the base model", ("kv",)),
}


ENCODER_LAWS: dict[str, Law] = {
    "aligned": Law("states stand at the caller's own tokens, and equal what transformers gives for the same numbers put in by hand"),
    "alone": LAWS["alone"],
    "positions": Law("a text may fill all the model's positions, less the soft tokens; keys and values take none"),
    "types": Law("token types are those of the caller's tokens; soft tokens have type 0", typed=True),
    "windows": Law("a prefix is seen by every token, however short a layer's window", ("kv",), sliding=True),
    "baked": LAWS["baked"],
    "checkpointed": LAWS["checkpointed"],
    "frozen": LAWS["frozen"],
    "threads": LAWS["threads"],
    "peft": Law("the same numbers in PEFT give the same states", ("input",)),
    "observed": LAWS["observed"],
    "masked": Law("a masked virtual token = a prefix without it; all masked = the base model", ("kv",)),
}

SEQ2SEQ_LAWS: dict[str, Law] = {
    "aligned": Law("outputs stand at the answer's own tokens, and equal attention worked out by hand over the same numbers"),
    "parts": Law(
        "encoder, decoder and cross-attention are prefixed together or alone; a prefix changes what comes after it, nothing else", ("kv",)
    ),
    "alone": LAWS["alone"],
    "baked": LAWS["baked"],
    "predicting": LAWS["predicting"],
    "generated": Law(
        "greedy answers, alone and in a batch, are the likeliest without a cache; beams are transformers' own over the same keys"
    ),
    "checkpointed": LAWS["checkpointed"],
    "frozen": LAWS["frozen"],
    "threads": LAWS["threads"],
    "observed": LAWS["observed"],
    "masked": ENCODER_LAWS["masked"],
}

# Each kind of model has laws of its own, and tiny models: name -> model type and config.
TABLES: dict[Kind, dict[str, Law]] = {"causal": LAWS, "encoder": ENCODER_LAWS, "encoder-decoder": SEQ2SEQ_LAWS}
MODELS: dict[Kind, dict[str, tuple[str, Mapping[str, Any]]]] = {
    "causal": {**tiny.TINY},
    "encoder": {name: (model_type, settings) for name, (model_type, settings, _) in tiny_encoders.TINY.items()},
    "encoder-decoder": {**tiny_seq2seq.SEQ2SEQ},
}


def kind_of(name: str) -> Kind:
    """The kind of a tiny model."""
    return next(kind for kind, models in MODELS.items() if name in models)


def family(name: str) -> Family:
    """The family of a tiny model."""
    return FAMILIES[MODELS[kind_of(name)][name][0]]


def holds(law: str, name: str, site: Site) -> bool:
    """Whether a law is promised, and therefore tested, for a tiny model at a site."""
    kind = kind_of(name)
    rule, row = TABLES[kind][law], family(name)
    model_type, settings = MODELS[kind][name]
    return (
        site in row.sites
        and site in rule.sites
        and (not rule.sliding or "sliding_window" in settings or "local_attention" in settings)
        and (not rule.typed or settings.get("type_vocab_size", 0) > 1)
        and ("kv" in row.sites or not rule.needs_kv)
        and model_type not in rule.broken
    )


def law(key: str, kind: Kind = "causal") -> pytest.MarkDecorator:
    """Run a test over every method × tiny model of a kind for which a law is promised."""
    cases = [(method, name) for name in MODELS[kind] for method, recipe in METHODS.items() if holds(key, name, recipe().site)]
    return pytest.mark.parametrize(("method", "name"), cases, ids=[f"{name}-{method}" for method, name in cases])
