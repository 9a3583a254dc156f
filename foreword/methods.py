"""The named methods and the baselines they are compared with: short recipes that cite their paper. Only this file has the names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from operator import add

from foreword.errors import UsageError
from foreword.recipe import LoraSpec, Recipe
from foreword.specs import Init, Layers, PromptSpec, Reparam


def prompt_tuning(length: int = 20, *, init: Init | None = None) -> PromptSpec:
    """Lester et al. 2021 (arXiv:2104.08691): a free table [P, E] in front of the input.

    Differs: starts from the task's words by default, and steps are relative to the embedding table's RMS (their 0.3 is absolute, for T5).
    """
    return PromptSpec("prompt-tuning", length, "input", Reparam("direct"), init or Init())


def p_tuning(length: int = 20, *, encoder: str = "mlp", init: Init | None = None, hidden: int = 512) -> PromptSpec:
    """Liu et al. 2021 (arXiv:2103.10385): soft tokens anywhere in a template, made by an MLP, or a bidirectional LSTM + MLP.

    Differs: the encoder gives a displacement from the initial values (its last layer starts at zero), so training starts at the initial values;
    the MLP is the default, as its training is more stable (LOG.md).
    """
    if encoder not in ("lstm", "mlp"):
        raise UsageError(f"encoder '{encoder}' is not known; choose mlp or lstm.")
    reparam = Reparam("lstm", hidden) if encoder == "lstm" else Reparam("mlp", hidden)
    return PromptSpec("p-tuning", length, "input", reparam, init or Init())


def prefix_tuning(
    length: int = 20,
    *,
    prefix_projection: bool = True,
    init: Init | None = None,
    hidden: int = 512,
    layers: Layers = "all",
    dropout: float = 0.0,
) -> PromptSpec:
    """Li & Liang 2021 (arXiv:2101.00190, §4.3): keys and values before every layer's own, [P, E'] → MLP → [P, W], the MLP dropped when saved.

    Differs: the MLP gives a displacement from real keys and values; their low-data recipe needs a separate fit for this.
    """
    reparam = Reparam("mlp", hidden) if prefix_projection else Reparam("direct")
    return PromptSpec("prefix-tuning", length, "kv", reparam, init or Init(), layers, dropout)


def p_tuning_v2(length: int = 20, *, init: Init | None = None, layers: Layers = "all", dropout: float = 0.0) -> PromptSpec:
    """Liu et al. 2022 (arXiv:2110.07602): keys and values of every layer trained directly. Differs: label words instead of a head here."""
    return PromptSpec("p-tuning-v2", length, "kv", Reparam("direct"), init or Init(), layers, dropout)


# The default method: first of the four in single runs without a tuned rate on Gemma-3-270M (LOG.md), and cheap to train: no virtual token is computed.
DEFAULT_METHOD = "prefix-tuning"

METHODS: dict[str, Callable[..., PromptSpec]] = {
    "prompt-tuning": prompt_tuning,
    "p-tuning": p_tuning,
    "prefix-tuning": prefix_tuning,
    "p-tuning-v2": p_tuning_v2,
}


def lora(r: int = 8, alpha: float = 16.0, targets: str | tuple[str, ...] = "attention", *, rslora: bool = False) -> Recipe:
    """Hu et al. 2021 (arXiv:2106.09685): W + (alpha / r)·B·A beside queries and values; `rslora` divides by √r (arXiv:2312.03732)."""
    return Recipe("lora", lora=LoraSpec(r, alpha, targets, rslora))


def qlora(r: int = 8, alpha: float = 16.0, targets: str | tuple[str, ...] = "all-linear", *, rslora: bool = False) -> Recipe:
    """Dettmers et al. 2023 (arXiv:2305.14314): LoRA on every linear layer of a base in 4-bit NF4. Differs: AdamW as everywhere, unpaged."""
    return Recipe("qlora", lora=LoraSpec(r, alpha, targets, rslora), quantize="nf4")


def full() -> Recipe:
    """Full fine-tuning (Howard & Ruder 2018, arXiv:1801.06146): a copy of the base in fp32 whose every weight is trained."""
    return Recipe("full", full=True)


def head_only() -> Recipe:
    """Linear probing (Alain & Bengio 2016, arXiv:1610.01644): the task's head on the frozen model's last states. For tasks that have one."""
    return Recipe("head-only")


def zero_shot() -> Recipe:
    """A written prompt (Radford et al. 2019): the template's words alone, nothing is trained."""
    return Recipe("zero-shot")


def few_shot(shots: int = 4) -> Recipe:
    """A written prompt with examples (Brown et al. 2020, arXiv:2005.14165): `shots` of the training examples before the text, nothing is trained."""
    if type(shots) is not int or shots < 1:
        raise UsageError(f"few-shot came with {shots!r} shots, but it needs a whole number of at least 1; use zero-shot for none.")
    return Recipe("few-shot", shots=shots)


BASELINES: dict[str, Callable[..., Recipe]] = {
    "lora": lora,
    "qlora": qlora,
    "full": full,
    "head-only": head_only,
    "zero-shot": zero_shot,
    "few-shot": few_shot,
}

# Baselines of which nothing is trained, not even a head: a written prompt answers.
WRITTEN = ("zero-shot", "few-shot")


def named(text: str) -> Recipe:
    """The recipe a user names with its defaults: a method, a baseline, or a sum as in "prefix-tuning+lora".

    Raises UsageError for an unknown name and for a sum that is not valid.
    """
    known = METHODS | BASELINES
    parts: list[Recipe] = []
    for name in text.split("+"):
        if name.strip() not in known:
            raise UsageError(f"method '{name.strip()}' is not known; choose one of {', '.join(known)}, or a sum like prefix-tuning+lora.")
        parts.append(Recipe.of(known[name.strip()]()))
    return reduce(add, parts)


def recipe(
    name: str, *, length: int | None = None, init: Init | None = None, layers: Layers | None = None, dropout: float | None = None
) -> PromptSpec:
    """The spec of a method by name, with the options every method shares, by default its own; raises UsageError for an unknown name or an option that does not apply."""
    if name not in METHODS:
        raise UsageError(f"method '{name}' is not known; choose one of {', '.join(METHODS)}.")
    spec = METHODS[name]()
    given = {"length": length, "init": init, "layers": layers, "dropout": dropout}
    return replace(spec, **{key: value for key, value in given.items() if value is not None})
