"""The families by `model_type`: which keep the laws at which site, and one sentence for those that do not."""

from __future__ import annotations

from foreword.errors import ModelError
from foreword.families.base import Family
from foreword.families.causal_families import CAUSAL_FAMILIES
from foreword.families.encoder_families import ENCODER_FAMILIES
from foreword.families.refused_families import REFUSED
from foreword.families.seq2seq_families import SEQ2SEQ_FAMILIES
from foreword.shape import ModelShape
from foreword.specs import PromptSpec, Window

__all__ = ["FAMILIES", "REFUSED", "Family", "check_site", "check_window", "family_of"]

_INSTEAD = "use a method of the input site (prompt-like tables and encoders before the text), or LoRA"

FAMILIES: dict[str, Family] = {**CAUSAL_FAMILIES, **SEQ2SEQ_FAMILIES, **ENCODER_FAMILIES}


def family_of(model_type: str) -> Family:
    """The row of a model type; raises ModelError with what works instead."""
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    if model_type in REFUSED:
        raise ModelError(f"model type '{model_type}' is not supported: {REFUSED[model_type]}.")
    raise ModelError(f"model type '{model_type}' is not supported; use one of: {', '.join(FAMILIES)}.")


def check_site(spec: PromptSpec | None, shape: ModelShape) -> None:
    """Raise ModelError when a family does not keep the laws at a spec's site, or with its window."""
    family = family_of(shape.family)
    if spec is not None and spec.site not in family.sites:
        raise ModelError(
            f"method '{spec.method}' puts keys and values before every layer, but {family.title} does not support them: {family.why_not}; {_INSTEAD}."
        )
    if spec is not None and spec.site == "kv":
        check_window(spec.window, shape)


def check_window(window: Window, shape: ModelShape) -> None:
    """Raise ModelError for window "model" on a model with sliding windows whose text does not begin after the prefix."""
    if window == "model" and shape.kind != "causal" and shape.windowed:
        raise ModelError(
            f"window 'model' is not supported for {family_of(shape.family).title}, because a prefix has no position there that could leave the sliding "
            "window; use window 'pinned'."
        )
