"""Tables of serving: how many times as fast as what, and what a soak found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Document = dict[str, Any]


def serve_table(cases: Document) -> list[str]:
    """One row a comparison: the ratio of tokens (or answers) a second, median over rounds, least and most in brackets."""
    lines = ["| requests | comparison | ratio | target | met |", "|---|---|--:|--:|:-:|"]
    for found in cases.values():
        about = found["about"].rstrip(".")
        for pair, ratio in found["ratios"].items():
            cells = [about, pair, f"{ratio['median']:.2f} ({ratio['least']:.2f}–{ratio['most']:.2f})", f"{ratio['asked']:g}"]
            lines.append("| " + " | ".join([*cells, "yes" if ratio["met"] else "no"]) + " |")
            about = ""
    return lines


def waits_table(cases: Document) -> list[str]:
    """Waits as shares of each case's longest median wait for a first token: seconds belong to one machine and one day."""
    lines = ["| requests | side | first token p50 | p90 | p99 | next token p50 | p90 | p99 |", "|---|---|--:|--:|--:|--:|--:|--:|"]
    for found in cases.values():
        heard = {name: side for name, side in found["sides"].items() if side["seconds_to_first_token_p50_p90_p99"]}
        about = found["about"].rstrip(".")
        whole = max((side["seconds_to_first_token_p50_p90_p99"][0] for side in heard.values()), default=0.0)
        for name, side in heard.items():
            waits = [*side["seconds_to_first_token_p50_p90_p99"], *(side["seconds_between_tokens_p50_p90_p99"] or ())]
            if len(waits) == 6:
                lines.append("| " + " | ".join([about, name, *(f"{wait / whole:.2f}" for wait in waits)]) + " |")
                about = ""
    return lines


def operations_table(operations: Document) -> list[str]:
    """One row a fact of loading and replacing."""
    lines = ["| measurement | value | target | met |", "|---|--:|--:|:-:|"]
    for name, fact in operations.items():
        lines.append(f"| {name} | {fact['found']:g} | {fact['asked']} | {_reached(fact['met'])} |")
    return lines


def soak_lines(soak: Document) -> list[str]:
    """What happened in the soak, in one paragraph."""
    counts = ", ".join(f"{many:,} × {what}" for what, many in soak["counts"].items())
    memory, wrong = soak["memory"], soak["wrong"]
    return [
        f"{soak['minutes']:g} minutes: {counts}. Memory in the last quarter divided by that in the second quarter: {memory['ratio']:.3f} "
        f"(target: at most {memory['asked']:g}).",
        f"Failures: {len(wrong) or 'none'}." + _first(wrong),
    ]


def _reached(met: bool | None) -> str:
    return "–" if met is None else "yes" if met else "no"


def _first(wrong: Sequence[str]) -> str:
    return f" The first: {wrong[0]}" if wrong else ""
