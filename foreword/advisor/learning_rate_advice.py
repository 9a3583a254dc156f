"""The default learning rate of a run, with its reason and source; the numbers are those of `foreword/learning_rates.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from foreword import learning_rates
from foreword.advisor.rules import OWN_RESULTS, OWN_RUNS, Choice, Fact
from foreword.shape import Kind
from foreword.task_kinds import kind_on

# By kind of recipe; for soft prompts relative to the RMS of the model's own values.
RATES: Mapping[str, Choice] = {
    "input/direct": Choice(
        "learning_rate",
        (),
        learning_rates.RATES["input/direct"],
        "relative: first steps of 3 % of the RMS of the model's own embeddings",
        OWN_RUNS,
    ),
    "input/network": Choice(
        "learning_rate",
        (),
        learning_rates.RATES["input/network"],
        "relative: with 0.005 training was slower, larger ones were not tried",
        OWN_RUNS,
    ),
    "kv/direct": Choice(
        "learning_rate",
        (),
        learning_rates.RATES["kv/direct"],
        "relative: first steps of 3 % of the RMS of the model's own keys and values",
        OWN_RUNS,
    ),
    "kv/network": Choice(
        "learning_rate", (), learning_rates.RATES["kv/network"], "relative: with the 0.03 of a free table the loss did not fall", OWN_RUNS
    ),
    "lora": Choice(
        "learning_rate",
        (),
        learning_rates.RATES["lora"],
        "AdamW's own rate, for runs of a few hundred steps",
        "the order of arXiv:2106.09685; Foreword's default",
    ),
    "qlora": Choice(
        "learning_rate",
        (),
        learning_rates.RATES["lora"],
        "AdamW's own rate, for runs of a few hundred steps",
        "the order of arXiv:2305.14314; Foreword's default",
    ),
    "full": Choice(
        "learning_rate",
        (),
        learning_rates.RATES["full"],
        "AdamW's own rate, of the small-data settings for fine-tuning",
        "arXiv:1810.04805; Foreword's default",
    ),
}

FITTED_REASON = "of the rates tried the one with the best validation loss for this task on this kind of model"


def rate(kind: str, facts: Mapping[str, Fact]) -> Choice:
    """The default learning rate of this kind of recipe for this task."""
    general, model = RATES[kind], cast("Kind", facts["kind"])
    value = learning_rates.rate_of("lora" if kind == "qlora" else kind, kind_on(str(facts["task"]), model).name, model)
    if value == general.value:
        return general
    return replace(general, value=value, reason=f"{FITTED_REASON}; elsewhere {general.value:g}", source=OWN_RESULTS)
