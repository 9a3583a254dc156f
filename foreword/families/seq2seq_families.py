"""Encoder–decoders, one record each."""

from __future__ import annotations

from dataclasses import replace

from foreword.families.base import Family
from foreword.families.weight_layout import ALL_BIASED, Layout

_T5 = Family("T5", kind="encoder-decoder", lora_targets=("q", "v"), layout=Layout(gated=False, tied=True))
_BART = Family(
    "BART",
    kind="encoder-decoder",
    lora_targets=("q_proj", "v_proj"),
    layout=Layout(gated=False, biased=ALL_BIASED, end_norms=0, embedding_norms=1, norm=2, positions=2, tied=True),
)

SEQ2SEQ_FAMILIES: dict[str, Family] = {
    "t5": _T5,
    "mt5": replace(_T5, title="mT5", layout=Layout(gated=False, tied=False)),
    "bart": _BART,
    "mbart": replace(_BART, title="mBART", layout=replace(_BART.layout, end_norms=1)),
    "marian": replace(_BART, title="Marian", layout=replace(_BART.layout, embedding_norms=0, positions=0)),
    "pegasus": replace(_BART, title="Pegasus", layout=replace(_BART.layout, embedding_norms=0, end_norms=1, positions=0)),
}
