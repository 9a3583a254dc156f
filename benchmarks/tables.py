"""Pages from result files: docs/results.md and the measured part of each method's page. Missing measurements are named as missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import store
from provenance import ROOT
from runs import RATES, best, run_of
from tables_nlu import nlu_table, skills_table, speed_lines
from tables_serving import operations_table, serve_table, soak_lines, waits_table

from foreword.methods import METHODS

START, END = "<!-- results:start -->", "<!-- results:end -->"
Document = dict[str, Any]
SPEED, STARTUP = "speed.json", "startup.json"
QUALITY = ("quality.json", "quality_fresh.json")
NLU = ("nlu.json", "nlu_speed.json", "seq2seq_skills.json")
SERVING = ("serve.json", "serve_operations.json", "soak.json", "serve_vllm.json", "serve_burst.json")


def pages(results: Path = store.RESULTS, docs: Path = ROOT / "docs") -> dict[Path, str]:
    """Every page that result files decide, as it should read; raises LookupError for a method's page without its marks."""
    speed, quality = store.read(results / SPEED), [store.read(results / name) for name in QUALITY]
    serving = [store.read(results / name) for name in SERVING]
    fresh = {
        docs / "results.md": results_page(
            speed, quality, store.read(results / STARTUP), [store.read(results / name) for name in NLU], serving
        )
    }
    for method in METHODS:
        page = docs / "methods" / f"{method}.md"
        fresh[page] = _between(page, "\n".join(method_block(method, speed, *quality)))
    return fresh


def results_page(
    speed: Document, quality: Sequence[Document], startup: Document, nlu: Sequence[Document], serving: Sequence[Document]
) -> str:
    """docs/results.md."""
    lines = ["# Results", "", "Written by `scripts/docs` from `benchmarks/results/`; do not edit. How each number is measured:"]
    lines += ["[benchmarks/README.md](../benchmarks/README.md).", "", "## Training speed and memory", ""]
    cases = list(speed.get("cases", {}).values())
    lines += [*speed_table(cases), "", *speed_notes(cases)] if cases else [_missing("speed.py")]
    lines += ["", "## Accuracy", "", *quality_part(*quality), "", "## Tasks with a head", "", *nlu_part(*nlu)]
    lines += ["", "## Start-up time of the command line", "", *(startup_table(startup) if startup else [_missing("startup.py")])]
    return "\n".join([*lines, *serving_part(*serving)]) + "\n"


def quality_part(quality: Document, fresh: Document) -> list[str]:
    """Our defaults against PEFT's best rates on the test, then on the fresh sentences, and what chose the rates."""
    if not quality.get("runs"):
        return [_missing("quality.py")]
    lines = [*quality_intro(quality), "", *quality_table(quality, tuple(METHODS)), *fresh_table(quality, fresh, tuple(METHODS))]
    lines += ["", *quality_notes(fresh)] if fresh else []
    return [*lines, "", "### PEFT's learning rates", "", *sweep_table(quality), "", *quality_notes(quality)]


def fresh_table(quality: Document, fresh: Document, methods: Sequence[str]) -> list[str]:
    """The trainings that were evaluated on further sentences too; nothing where none was."""
    if not any(run["method"] in methods for run in fresh.get("runs", [])):
        return []
    count = int(fresh["setting"]["data"]["test"].split(" ")[0])
    return [
        "",
        f"The same training runs on {count:,} other test sentences (finished runs only):",
        "",
        *quality_table(fresh, methods, quality),
    ]


def nlu_part(nlu: Document, speed: Document, skills: Document) -> list[str]:
    """What recipes reach, how fast they train, and skills of an encoder–decoder; the plan, and where it was measured."""
    lines = [_missing("nlu.py")]
    if nlu:
        plans = "; ".join(
            f"{name}: {found['plan']['steps']} steps of {found['plan']['batch_size']}" for name, found in nlu["setting"].items()
        )
        about = (
            f"Scores on test data, ± one standard error of seeds and test examples together ({plans}). Learning rates are chosen by validation loss "
            "on the first seed; the best rate over the data sets of a task is its default (`foreword/learning_rates.py`)."
        )
        lines = [about, "", *nlu_table(nlu["runs"]), "", *dict.fromkeys(birthplace(session) for session in nlu["sessions"])]
    lines += ["", *([*speed_lines(speed), "", birthplace(speed["provenance"])] if speed else [_missing("nlu_speed.py")])]
    if skills:
        lines += [
            "",
            "## Skills of an encoder–decoder, selected by a prefix",
            "",
            *skills_table(skills),
            "",
            birthplace(skills["provenance"]),
        ]
    return lines


def serving_part(serve: Document, operations: Document, soak: Document, vllm: Document, burst: Document) -> list[str]:
    """Throughput, waits, bursts, loads and replacements, and the soak."""
    lines = ["", "## Serving", ""]
    cases = serve.get("cases", {})
    if cases:
        about = "Ratios of tokens per second (of answers per second for tasks with a head): the median over rounds in which all sides alternate, minimum and maximum in brackets."
        waits = "Latency with streaming, relative to the longest median time to first token for the same requests:"
        lines += [about, "", *serve_table(cases), "", waits, "", *waits_table(cases), ""]
        lines += list(dict.fromkeys(birthplace(found["provenance"]) for found in cases.values()))
    else:
        lines += [_missing("serve.py")]
    lines += ["", "### Against vLLM", ""]
    if cases := vllm.get("cases", {}):
        lines += [
            "Ratios of tokens per second on the same cores:",
            "",
            *serve_table(cases),
            "",
            birthplace(next(iter(cases.values()))["provenance"]),
        ]
    else:
        lines += [_missing("serve_vllm.py")]
    lines += ["", "### Long texts beside running answers", ""]
    lines += burst and [*operations_table(burst["facts"]), "", birthplace(burst["provenance"])] or [_missing("serve_burst.py")]
    lines += ["", "### Loading and replacing tasks", ""]
    measured = operations and [*operations_table(operations["facts"]), "", birthplace(operations["provenance"])]
    lines += measured or [_missing("serve_operations.py")]
    lines += ["", "### Soak test", ""]
    return [*lines, *([*soak_lines(soak), "", birthplace(soak["provenance"])] if soak else [_missing("soak.py")])]


def method_block(method: str, speed: Document, quality: Document, fresh: Document) -> list[str]:
    """What was measured of one method; nothing where nothing was."""
    cases = [found for found in speed.get("cases", {}).values() if found["case"]["method"] == method]
    runs = [run for run in quality.get("runs", []) if run["method"] == method]
    lines: list[str] = []
    if runs:
        lines += ["", *quality_intro(quality), "", *quality_table(quality, (method,)), *fresh_table(quality, fresh, (method,))]
    if cases:
        lines += ["", "Training speed on the same batch, both systems alternating in one run:", "", *speed_table(cases)]
    return [*lines, "", "All results, with their machine, commit and command: [results](../results.md).", ""] if lines else []


def speed_table(cases: Sequence[Document]) -> list[str]:
    """One row a case: medians over rounds, the spread of the ratio in brackets."""
    lines = [
        "| | times PEFT's tokens per second | Foreword, peak memory | PEFT, peak memory | memory ratio | memory ratio without the idle model |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for found in cases:
        ratio, memory = found["times_faster"], found["memory"]  # speeds themselves belong to one machine and one day
        cells = [found["case"]["name"], f"{ratio['median']:.2f} ({ratio['least']:.2f}–{ratio['most']:.2f})"]
        cells += [f"{memory[side]['peak'] / 2**30:.2f} GiB" for side in ("foreword", "peft")]
        cells += [f"{found['peak_memory_share']:.2f}", f"{found['above_idle_share']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def speed_notes(cases: Sequence[Document]) -> list[str]:
    """The setting, what was asked and reached, the share of the machine's peak, and where it was measured."""
    setting = cases[0]["setting"]
    lines = [
        f"Batches of {setting['batch_size']} × {setting['text_tokens']} text tokens, {setting['labels_per_row']} labelled in each row, "
        f"{cases[0]['case']['length']} virtual tokens. Medians over rounds in which both systems alternate, minimum and maximum in brackets. Peak memory is",
        "the peak resident memory of each system's own process, model and libraries included; the last column excludes the memory that was resident",
        "after the model was loaded.",
        "",
    ]
    for found in cases:
        asked, share = found["asked"], found["share_of_peak"]["median"]
        bar = "PEFT's speed or more" if asked["times_faster"] == 1 else f"at least {asked['times_faster']:g} times PEFT's speed"
        bar += f" and at most {asked['peak_memory_share']:g} of its peak memory" if asked["peak_memory_share"] else ""
        reached = "met" if found["met"] else "not met"
        peak = found["peak_flops"]["median"] / 1e12
        lines.append(
            f"- {found['case']['name']}: target: {bar}, {reached}; {share:.0%} of the machine's matrix-product peak ({peak:.2f} Tflop/s)."
        )
    births = list(dict.fromkeys(birthplace(found["provenance"]) for found in cases))
    return [*lines, "", *births]


def startup_table(startup: Document) -> list[str]:
    """One row a command: medians over rounds, least and most of the ratio in brackets."""
    most, python = startup["setting"]["seconds_at_most"], next(iter(startup["commands"]))
    lines = [f"| command | times `{python}` | under {most:g} s |", "|---|--:|:-:|"]
    for name, found in startup["commands"].items():
        if name != python:
            ratio = found["times_python"]
            reached = "yes" if found["met"] else "no"
            lines.append(f"| `{name}` | {ratio['median']:.1f} ({ratio['least']:.1f}–{ratio['most']:.1f}) | {reached} |")
    return [*lines, "", birthplace(startup["provenance"])]


def quality_intro(quality: Document) -> list[str]:
    setting = quality["setting"]
    tests = setting["data"]["test"].split(" ")[0]
    return [
        f"Rotten Tomatoes sentences, negative or positive, Gemma-3-270M, {setting['num_virtual_tokens']} virtual tokens, {setting['steps']} steps of "
        f"{setting['batch_size']}; accuracy on {tests} held-out",
        "sentences ± standard error, mean over seeds, minimum and maximum in brackets. Foreword uses its defaults; PEFT uses the best of three",
        "learning rates, chosen by validation loss.",
    ]


def quality_table(quality: Document, methods: Sequence[str], swept: Document | None = None) -> list[str]:
    """One row a system and method that has been run; `swept` is the file that chose PEFT's rates, if it is another one."""
    lines = ["| method | system | variant | rate | accuracy | seeds |", "|---|---|---|--:|--:|--:|"]
    for method in methods:
        runs = [run for run in quality["runs"] if run["method"] == method]
        lines += _quality_row(method, "Foreword", "defaults", "–", [run for run in runs if run["system"] == "foreword"])
        chosen = best((swept or quality)["runs"], method, quality["sessions"][0]["seeds"][0])
        if chosen:
            same = [run for run in runs if (run["system"], run["variant"], run["rate"]) == (chosen.system, chosen.variant, chosen.rate)]
            lines += _quality_row(method, "PEFT", chosen.variant, f"{chosen.rate:g}", same)
    return lines


def _quality_row(method: str, system: str, variant: str, rate: str, runs: Sequence[Document]) -> list[str]:
    if not runs:
        return []
    scores = [run["test"]["accuracy"] for run in runs]
    values = [score["value"] for score in scores]
    mean, error = (sum(column) / len(column) for column in (values, [score["stderr"] for score in scores]))
    accuracy = f"{mean:.3f} ± {error:.3f} ({min(values):.3f}–{max(values):.3f})"
    return [f"| {method} | {system} | {variant} | {rate} | {accuracy} | {len(runs)} |"]


def sweep_table(quality: Document) -> list[str]:
    """PEFT on the first seed: what the choice was made from."""
    first = quality["sessions"][0]["seeds"][0]
    found = {run_of(run): run for run in quality["runs"]}
    lines = ["| method | variant | rate | validation loss | validation accuracy | test accuracy |", "|---|---|--:|--:|--:|--:|"]
    for run, result in sorted(found.items(), key=lambda pair: (list(METHODS).index(pair[0].method), pair[0].rate or 0)):
        if run.system == "peft" and run.seed == first:
            scores = [result["valid"]["loss"], result["valid"]["accuracy"], result["test"]["accuracy"]]
            cells = [run.method, run.variant, f"{run.rate:g}", *(f"{score['value']:.3f} ± {score['stderr']:.3f}" for score in scores)]
            lines.append("| " + " | ".join(cells) + " |")
    missing = [method for method in RATES if best(quality["runs"], method, first) is None]
    return [*lines, "", f"Not complete yet: {', '.join(missing)}."] if missing else lines


def quality_notes(quality: Document) -> list[str]:
    return list(dict.fromkeys(birthplace(session) for session in quality["sessions"]))


def birthplace(birth: Document) -> str:
    """One line: command, commit, date, machine, versions."""
    machine, versions = birth["machine"], birth["versions"]
    state = " with uncommitted changes" if birth["dirty"] else ""
    names = ", ".join(f"{name} {value}" for name, value in versions.items())
    return (
        f"`{birth['command']}` at commit {birth['commit']}{state}, {birth['date']}, {machine['cpu']} ({', '.join(machine['instructions'])}), "
        f"{machine['threads']} threads on {machine['cores']} cores, {machine['memory_gib']:g} GiB, load {machine['load']:g} before; {names}."
    )


def _missing(script: str) -> str:
    return f"Not measured yet; run `python benchmarks/{script}`."


def _between(page: Path, block: str) -> str:
    """The page with the block between its marks."""
    text = page.read_text("utf-8")
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise LookupError(f"{page.name} needs one line '{START}' and, after it, one line '{END}'.")
    before, rest = text.split(START)
    return f"{before}{START}\n{block}{chr(10) if block else ''}{END}{rest.split(END)[1]}"
