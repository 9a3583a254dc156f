"""`foreword compare` on real runs: its table and its document, a stop and a kill in the middle, and every refusal in one sentence."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from children import child
from cli.given import ROWS, Foreword, write
from cli.support.test_screen import on_a_terminal

from foreword.adapters.adapter import Adapter
from foreword.evaluation.example_results import read_results

BUDGET = ("--steps", "4", "--eval-every", "2", "--batch-size", "4", "--length", "4")
METHODS = ("--methods", "prompt-tuning,p-tuning-v2,zero-shot", "--seeds", "2")
KEYS = {"adapter", "method", "task", "model", "num_parameters", "bytes", "steps", "seconds", "peak_memory", "scores", "seed", "latency"}


def command(model: Path, data: Path, out: Path, *more: str) -> list[str]:
    return ["compare", str(data), "--model", str(model), "--out", str(out), *BUDGET, *METHODS, *more]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, foreword: Foreword, model: Path, reviews: Path) -> tuple[Path, dict[str, Any], str]:
    """An uninterrupted comparison: its folder, its document, and what was said beside it."""
    out = tmp_path_factory.mktemp("whole") / "compare"
    result = foreword(*command(model, reviews, out, "--json"))
    assert result.exit_code == 0
    return out, json.loads(result.stdout), result.stderr


def results(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What must not depend on when and where a run was done."""
    return [(row["method"], row["seed"], row["status"], row["steps"], row.get("valid"), row["scores"]) for row in rows]


def tensors(out: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(out.glob("*/adapter_model.safetensors"))}


def test_a_document_has_a_row_a_run_and_a_line_a_method(whole: tuple[Path, dict[str, Any], str], model: Path) -> None:
    out, found, said = whole
    assert [(row["method"], row["seed"]) for row in found["rows"]] == [
        ("prompt-tuning", 0),
        ("p-tuning-v2", 0),
        ("zero-shot", 0),
        ("prompt-tuning", 1),
        ("p-tuning-v2", 1),
    ]
    assert all(set(row) >= KEYS for row in found["rows"])
    assert (found["complete"], found["metric"], found["results"]) == (True, "accuracy", str(out / "compare.json"))
    assert found["rows"] == json.loads((out / "compare.json").read_text("utf-8"))["rows"]
    assert {line["method"]: line["scores"]["accuracy"]["n"] for line in found["summary"]} == {
        "prompt-tuning": 8,
        "p-tuning-v2": 8,
        "zero-shot": 8,
    }
    assert {row["model"] for row in found["rows"]} == {str(model)}
    first, *lines = said.splitlines()
    assert first == f"5 runs, 0 of them finished and saved in '{out / 'compare.json'}'"
    assert [line.split(": ")[:2] for line in lines] == [
        [f"run {i} of 5", f"{row['method']}, seed {row['seed']}"] for i, row in enumerate(found["rows"], 1)
    ]


def test_every_training_leaves_its_adapter(whole: tuple[Path, dict[str, Any], str], foreword: Foreword, reviews: Path) -> None:
    out, found, _ = whole
    assert sorted(tensors(out)) == ["p-tuning-v2-seed-0", "p-tuning-v2-seed-1", "prompt-tuning-seed-0", "prompt-tuning-seed-1"]
    row = found["rows"][0]
    adapter = Adapter.load(row["adapter"])
    assert (row["num_parameters"], row["num_trained"], row["steps"]) == (adapter.num_parameters, 4 * 32, 4)
    assert adapter.provenance["seed"] == row["seed"] == 0
    assert foreword("predict", row["adapter"], "a joy").exit_code == 0


def test_every_run_leaves_the_results_of_its_test_examples(whole: tuple[Path, dict[str, Any], str]) -> None:
    out, found, _ = whole
    names = [f"{row['method']}-seed-{row['seed']}.jsonl" for row in found["rows"]]
    assert [row["examples"] for row in found["rows"]] == [str(out / "examples" / name) for name in names]
    assert sorted(path.name for path in (out / "examples").iterdir()) == sorted(names)
    inputs = set()
    for row in found["rows"]:
        results = read_results(Path(row["examples"]))
        assert sum(result.answer == result.target for result in results) / 8 == row["scores"]["accuracy"]["value"]
        assert sum(result.loss or 0.0 for result in results) / 8 == pytest.approx(row["scores"]["loss"]["value"])
        inputs.add(tuple(result.input["text"] for result in results))
    assert len(inputs) == 1, "line n is the same example in every file"


def test_all_methods_train_on_the_same_examples_and_test_ones_are_never_among_them(whole: tuple[Path, dict[str, Any], str]) -> None:
    out, found, _ = whole
    data = {Adapter.load(row["adapter"]).provenance["data"] for row in found["rows"] if row["adapter"]}
    assert len(data) == 1
    setting = json.loads((out / "compare.json").read_text("utf-8"))["setting"]
    sizes = [setting[f"{part} data"].split(" ")[0] for part in ("training", "validation", "test")]
    assert sizes == ["29", "3", "8"]
    assert data == {" ".join(setting[f"{part} data"].split(", ")[1] for part in ("training", "validation"))}


def test_the_same_command_shows_the_table_and_does_nothing_again(
    whole: tuple[Path, dict[str, Any], str], foreword: Foreword, model: Path, reviews: Path
) -> None:
    out, found, _ = whole
    result = foreword(*command(model, reviews, out))
    assert result.exit_code == 0
    assert result.stderr == f"5 runs, 5 of them finished and saved in '{out / 'compare.json'}'\n"
    head, *lines = result.stdout.splitlines()
    assert head.split() == ["method", "accuracy", "seeds", "trained", "stored", "time", "memory", "latency"]
    assert [line.split()[0] for line in lines[:3]] == [line["method"] for line in found["summary"]]
    best, score = found["summary"][0], found["summary"][0]["scores"]["accuracy"]
    assert lines[0].startswith(f"{best['method']:<13}  {score['value']:.3f} ± {score['stderr']:.3f}  ")
    assert lines[3].startswith("8 test examples; ± is one standard error over test examples and seeds;")
    sorted_by = foreword(*command(model, reviews, out, "--metric", "loss", "--json"))
    losses = [line["scores"]["loss"]["value"] for line in json.loads(sorted_by.stdout)["summary"]]
    assert losses == sorted(losses)


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_after_a_stop_in_the_middle_the_same_command_ends_as_if_there_had_been_none(
    foreword: Foreword, model: Path, reviews: Path, tmp_path: Path, whole: tuple[Path, dict[str, Any], str], sign: signal.Signals
) -> None:
    words = command(model, reviews, tmp_path / "out", "--json", "--seeds", "9")  # enough to be still busy when the signal arrives
    with child([sys.executable, "-m", "foreword", *words]) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stderr:
            if line.startswith("run 2 of 19"):
                process.send_signal(sign)
                break
        rest = process.stderr.read().splitlines()
        assert process.stdout.read() == ""
        code = process.wait()
    if sign == signal.SIGINT:
        kept = f"note: finished runs are saved in '{tmp_path / 'out/compare.json'}'; run the same command to continue."
        assert (code, rest) == (130, [kept, "foreword: stopped."])
    done = len(json.loads((tmp_path / "out/compare.json").read_text("utf-8"))["rows"])
    assert 2 <= done < 19
    resumed = foreword(*words)
    assert resumed.stderr.startswith(f"19 runs, {done} of them finished and saved in ")
    found, (out, expected, _) = json.loads(resumed.stdout), whole
    assert results(found["rows"][:5]) == results(expected["rows"])
    assert tensors(tmp_path / "out").items() >= tensors(out).items()


def test_a_refused_method_says_why_and_the_others_go_on(foreword: Foreword, model: Path, reviews: Path, tmp_path: Path) -> None:
    result = foreword("compare", reviews, "--model", model, "--out", tmp_path / "out", "--methods", "head-only,few-shot", "--seeds", 1)
    why = "method 'head-only' trains nothing of task 'classify', which has no head; evaluate it as it is."
    assert result.exit_code == 0
    assert f"note: head-only is refused: {why}\n" in result.stderr
    assert re_spaced(result.stdout.splitlines()[2]) == "head-only refused – – – – – –"
    alone = foreword("compare", reviews, "--model", model, "--out", tmp_path / "new", "--methods", "head-only", "--task", "classify")
    assert (alone.exit_code, alone.stdout) == (2, "")
    assert alone.stderr == f"foreword: error: no method of head-only can do this (head-only: {why.rstrip('.')}).\n"


def re_spaced(line: str) -> str:
    return " ".join(line.split())


def test_a_terminal_gets_bars_and_a_line_a_run(model: Path, reviews: Path, tmp_path: Path) -> None:
    words = command(model, reviews, tmp_path / "out", "--methods", "prompt-tuning", "--seeds", "1", "--json")
    result, drawn = on_a_terminal(words)
    assert result.count("\n") == 1
    lines = [line for line in drawn if "━" not in line and "starting" not in line and "looking at" not in line]
    assert lines[0].startswith("1 run, 0 of them finished and saved in '")
    assert any(line.startswith("run 1 of 1: prompt-tuning, seed 0: accuracy ") for line in lines)
    bars = [line for line in drawn if "━" in line]
    assert max(map(len, bars)) <= 80
    assert any("prompt-tuning, seed 0" in line and "/4" in line for line in bars)


def test_time_that_is_up_is_said_and_the_same_command_goes_on(foreword: Foreword, model: Path, reviews: Path, tmp_path: Path) -> None:
    words = command(model, reviews, tmp_path / "out", "--json")
    stopped = foreword(*words, "--budget-minutes", 0)
    assert stopped.exit_code == 0
    assert stopped.stderr.splitlines()[1] == "note: the time limit was reached; run the same command to continue with the next run."
    assert (json.loads(stopped.stdout)["rows"], json.loads(stopped.stdout)["complete"]) == ([], False)


def test_test_texts_that_were_trained_on_are_counted(foreword: Foreword, model: Path, reviews: Path, tmp_path: Path) -> None:
    test = write(tmp_path / "test.jsonl", [*ROWS[:3], {"text": "unseen", "label": "good"}])
    words = command(model, reviews, tmp_path / "out", "--methods", "prompt-tuning", "--seeds", "1", "--test", str(test), "--json")
    result = foreword(*words, "--valid", str(test))
    assert result.stderr.startswith("note: 3 of 4 test texts also occur in the training data; the scores are too optimistic.\n")
    assert json.loads(result.stdout)["rows"][0]["scores"]["accuracy"]["n"] == 4


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ("--methods", "lora,magic"),
            "method 'magic' is not known; choose one of prompt-tuning, p-tuning, prefix-tuning, p-tuning-v2, lora, qlora, full, head-only, "
            "zero-shot, few-shot, or a sum like prefix-tuning+lora.",
        ),
        (("--methods", "lora,lora"), "method 'lora' is listed twice; list each method once."),
        (("--methods", "lora", "--length", "4"), "--length needs a soft prompt among --methods; add one, or leave --length out."),
        (("--methods", "lora", "--shots", "4"), "--shots needs few-shot among --methods; add it, or leave --shots out."),
        (
            ("--methods", "few-shot", "--shots", "0"),
            "few-shot came with 0 shots, but it needs a whole number of at least 1; use zero-shot for none.",
        ),
        (("--seeds", "0"), "the number of seeds is 0, but it must be at least 1; 3 or more show how far runs differ."),
        (("--tune", "99"), "99 learning rates were asked for, but 1 to 9 can be tried; 3 is common."),
        (("--budget-minutes", "-1"), "--budget-minutes is -1.0, but it must be at least 0."),
        (("--steps", "0"), "steps is 0, but it must be at least 1."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_that_cannot_be(
    foreword: Foreword, model: Path, reviews: Path, tmp_path: Path, more: tuple[str, ...], message: str
) -> None:
    result = foreword("compare", reviews, "--model", model, "--out", tmp_path / "out", *more)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"foreword: error: {message}\n")
    assert not (tmp_path / "out").exists()


def test_too_few_examples_and_another_setting(
    foreword: Foreword, model: Path, reviews: Path, tmp_path: Path, whole: tuple[Path, dict[str, Any], str]
) -> None:
    few = write(tmp_path / "few.jsonl", ROWS[3:5])
    result = foreword("compare", few, "--model", model, "--out", tmp_path / "out")
    assert result.stderr == f"foreword: error: '{few}' has 2 examples, but a comparison needs at least 3; add examples.\n"
    result = foreword(*command(model, reviews, whole[0]), "--steps", 5)
    assert (result.exit_code, result.stderr) == (
        2,
        f"foreword: error: '{whole[0] / 'compare.json'}' holds runs of another setting (steps: 4, now 5); "
        "repeat the options of those runs, or give another --out.\n",
    )
    missing = foreword("compare", reviews, "--model", "./nowhere", "--out", tmp_path / "out")
    assert missing.stderr == "foreword: error: model './nowhere' is not an existing folder; give a hub id or a folder with config.json.\n"
    assert foreword(*command(model, reviews, whole[0], "--metric", "bleu")).stderr == (
        "foreword: error: metric 'bleu' is not among accuracy, macro_f1, loss; choose one of them.\n"
    )
