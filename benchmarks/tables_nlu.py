"""The table of tasks with heads: what each recipe reaches at its general rate and at the best that was found."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from nlu import CASES, GENERAL, chosen, next_factor

Document = dict[str, Any]
MODELS = {"minilm": "MiniLM", "gemma": "Gemma-3-270M"}
LENGTHS = {
    "buckets": "padded batches of similar lengths",
    "no pads": "random batches without padding",
    "both": "batches of similar lengths without padding",
}
TITLES = {
    "pos": ("Parts of speech, Turkish Web Treebank", "token_accuracy"),
    "pos-short": ("The same, fewer steps and sentences", "token_accuracy"),
    "sentiment": ("Film reviews, Rotten Tomatoes", "accuracy"),
    "topic": ("Topics, BBC news by headline and first lines", "accuracy"),
}


def nlu_table(runs: Sequence[Document]) -> list[str]:
    """One row a case, model and recipe: mean over seeds ± the standard error of seeds and test examples together."""
    lines = [
        "| data | base model | recipe | trained parameters | score at the general rate | seeds | score at the best rate | best rate ÷ general rate | seeds |"
    ]
    lines += ["|---|---|---|--:|--:|--:|--:|--:|--:|"]
    for case, (title, metric) in TITLES.items():
        for model in CASES[case].models:
            for what in CASES[case].what:
                mine = [run for run in runs if (run["case"], run["model"], run["what"]) == (case, model, what)]
                if mine:
                    cells = _cells(runs, mine, (case, model, what), metric)
                    lines.append("| " + " | ".join([title, MODELS[model], _named(what), *cells]) + " |")
                    title = ""
    return lines


def _named(what: str) -> str:
    name, _, length = what.partition(":")
    return f"{name}, P = {length}" if length else name


def _cells(found: Sequence[Document], runs: Sequence[Document], one: tuple[str, str, str], metric: str) -> list[str]:
    best = chosen(found, one)
    size = next((f"{run['num_parameters']:,}" for run in runs if "num_parameters" in run), "–")
    cells = [size, *_score(runs, GENERAL, metric)]
    if best is None:
        return [*cells, "–", "–", "–"]
    following = next_factor(found, one)
    further = "" if following is None else " or more" if following > best else " or less"
    return [*cells, _score(runs, best, metric)[0], f"{best:g}{further}", _score(runs, best, metric)[1]]


def _score(runs: Sequence[Document], factor: float, metric: str) -> tuple[str, str]:
    """A mean with its error, and the number of seeds."""
    mine = [run for run in runs if run["factor"] == factor]
    if any(run["diverged"] for run in mine):
        return "diverged", str(len(mine))
    scores = [run["test"][metric] for run in mine]
    if not scores:
        return "–", "0"
    values = [score["value"] for score in scores]
    between = statistics.variance(values) / len(values) if len(values) > 1 else 0.0
    within = statistics.mean(score["stderr"] for score in scores)
    return f"{statistics.mean(values):.3f} ± {math.hypot(within, math.sqrt(between)):.3f}", str(len(values))


def skills_table(found: Document) -> list[str]:
    """One row a tiny model and skill: whole strings right with the skill's word, with the sign that says nothing, and with that sign and a prefix."""
    about = f"Strings of {found['setting']['test']} that are exactly correct, ± one standard error; target: {found['asked']:g} with a prefix. `[?]` does not name a skill."
    lines = [
        about,
        "",
        "| model | skill | with the skill's word | with `[?]` | with `[?]` and a prefix | bytes per prefix |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for model, skills in found["models"].items():
        for skill, row in skills.items():
            scores = [f"{row[name]:.3f} ± {row['stderr'][name]:.3f}" for name in ("word", "guess", "prefix")]
            lines.append("| " + " | ".join([model, skill, *scores, f"{row['bytes']:,}"]) + " |")
    return lines


def speed_lines(found: Document) -> list[str]:
    """Steps against PEFT's, what lengths cost, and memory with gradient checkpointing."""
    lines = ["| training step, MiniLM | times as fast | target | met |", "|---|--:|--:|:-:|"]
    rows = {f"{name}, against PEFT": case for name, case in found["against_peft"].items()}
    for name, case in found["lengths"].items():
        rows[f"P-tuning v2, {LENGTHS[name]}, against random padded batches"] = case
    for name, case in rows.items():
        times = case["times_faster"]
        cells = [name, f"{times['median']:.2f} ({times['least']:.2f}–{times['most']:.2f})", f"{case['asked']:g}"]
        lines.append("| " + " | ".join([*cells, "yes" if case["met"] else "no"]) + " |")
    memory = found["gradient_checkpointing"]
    above = [f"{memory[name]['above_idle'] / 2**20:.0f} MiB" for name in ("off", "on")]
    said = f"P-tuning v2 on Gemma-3-270M, 8 rows of 256 tokens: peak memory above the idle model {above[0]}, with gradient checkpointing {above[1]}"
    return [*lines, "", f"{said} ({memory['share_above_idle']:.2f} of it)."]
