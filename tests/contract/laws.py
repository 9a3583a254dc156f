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
    "aligned": Law("outputs are aligned with the input tokens and equal those of transformers when the same vectors are inserted manually"),
    "alone": Law(
        "a row gives the same outputs alone, with left padding, with right padding, and in a batch with other methods, lengths and positions"
    ),
    "windows": Law(
        "with a sliding window, a prefix leaves the window as the model's own tokens do, or stays visible when it is pinned",
        ("kv",),
        sliding=True,
    ),
    "baked": Law("a prompt gives the same outputs with and without its re-parameterisation"),
    "compiled": Law(
        "a prompt at the start of the text gives the same outputs when it is converted to keys and values", ("input",), needs_kv=True
    ),
    "predicting": Law("logits computed only at the labelled positions equal those of a full forward pass"),
    "generated": Law(
        "generation gives the same tokens in a batch, one row at a time and without a KV cache, and those of transformers when there is no prompt"
    ),
    "checkpointed": Law("gradients are the same with and without gradient checkpointing"),
    "frozen": Law("after training, every weight of the base model is bit-identical"),
    "threads": Law("two threads that use different prompts on one model do not affect each other"),
    "peft": Law("the same parameters give the same logits in PEFT"),
    "observed": Law("attention observers see the weights that produce each attention output, and change no output"),
    "masked": Law("masking a virtual token equals a prefix without it at the same positions; masking all equals the base model", ("kv",)),
}


ENCODER_LAWS: dict[str, Law] = {
    "aligned": Law(
        "hidden states are aligned with the input tokens and equal those of transformers when the same vectors are inserted manually"
    ),
    "alone": LAWS["alone"],
    "positions": Law("a text may use all of the model's positions except those of the soft tokens; keys and values use none"),
    "types": Law("text tokens keep their token types; soft tokens have type 0", typed=True),
    "windows": Law("every token attends to a prefix, whatever the size of a layer's window", ("kv",), sliding=True),
    "baked": LAWS["baked"],
    "checkpointed": LAWS["checkpointed"],
    "frozen": LAWS["frozen"],
    "threads": LAWS["threads"],
    "peft": Law("the same parameters give the same hidden states in PEFT", ("input",)),
    "observed": LAWS["observed"],
    "masked": Law("masking a virtual token equals a prefix without it; masking all equals the base model", ("kv",)),
}

SEQ2SEQ_LAWS: dict[str, Law] = {
    "aligned": Law("outputs are aligned with the target tokens and equal attention computed manually with the same vectors"),
    "parts": Law(
        "encoder, decoder and cross-attention can have prefixes together or separately; a prefix changes only what is computed after it",
        ("kv",),
    ),
    "alone": LAWS["alone"],
    "baked": LAWS["baked"],
    "predicting": LAWS["predicting"],
    "generated": Law(
        "greedy search, alone and in a batch, picks the most likely tokens of a forward pass without a KV cache; beam search equals that of transformers over the same keys"
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
