"""`--save` of `foreword evaluate` and `predict`: what is in the file, and what is refused before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.given import ROWS, Foreword, write

from foreword.evaluation.example_results import read_results


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_the_printed_scores_come_from_the_file(foreword: Foreword, trained: Path, reviews: Path, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"results.{suffix}"
    result = foreword("evaluate", trained, reviews, "--save", file, "--json")
    found = json.loads(result.stdout)
    assert result.stderr == f"40 examples kept in '{file}'\n"
    assert found["examples"] == str(file)
    results = read_results(file)
    assert [(r.input["text"], r.target) for r in results] == [(row["text"], row["label"]) for row in ROWS]
    assert sum(r.answer == r.target for r in results) / 40 == found["scores"]["accuracy"]["value"]
    assert sum(r.loss or 0.0 for r in results) / 40 == pytest.approx(found["scores"]["loss"]["value"], rel=1e-12)
    plain = json.loads(foreword("evaluate", trained, reviews, "--json").stdout)
    assert plain == {key: value for key, value in found.items() if key != "examples"}


def test_lines_have_the_documented_fields(foreword: Foreword, trained: Path, reviews: Path, tmp_path: Path) -> None:
    foreword("evaluate", trained, reviews, "--save", tmp_path / "r.jsonl")
    first = json.loads((tmp_path / "r.jsonl").read_text("utf-8").splitlines()[0])
    assert list(first) == ["input", "target", "answer", "value", "scores", "loss", "num_losses"]
    assert (first["value"], first["num_losses"], set(first["scores"])) == (None, 1, {"good", "bad"})


def test_written_texts_are_kept_with_their_loss(foreword: Foreword, writer: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "pairs.jsonl", [{"input": row["text"], "output": row["label"] * n} for n, row in enumerate(ROWS[:5], 1)])
    scores = json.loads(foreword("evaluate", writer, data, "--save", tmp_path / "r.parquet", "--json").stdout)["scores"]
    results = read_results(tmp_path / "r.parquet")
    assert sum(r.loss or 0.0 for r in results) / 5 == pytest.approx(scores["loss"]["value"], rel=1e-12)
    assert sum(r.answer.strip() == (r.target or "").strip() for r in results) / 5 == scores["exact_match"]["value"]
    assert all(r.scores == {} for r in results)


def test_predictions_are_kept_as_they_are_printed(foreword: Foreword, trained: Path, tmp_path: Path) -> None:
    texts = [f"film {i}" + " joy" * (i % 7) for i in range(40)]
    result = foreword("predict", trained, "--batch-size", 1, "--json", "--save", tmp_path / "r.parquet", input="\n".join(texts))
    printed = [json.loads(line) for line in result.stdout.splitlines()]
    results = read_results(tmp_path / "r.parquet")
    assert [(r.input["text"], r.answer, r.scores) for r in results] == [(p["input"], p["label"], p["scores"]) for p in printed]
    assert {(r.target, r.loss, r.num_losses) for r in results} == {(None, None, 0)}


def test_predict_keeps_the_targets_of_a_file(foreword: Foreword, trained: Path, reviews: Path, tmp_path: Path) -> None:
    foreword("predict", trained, "--file", reviews, "--save", tmp_path / "p.jsonl")
    foreword("evaluate", trained, reviews, "--save", tmp_path / "e.jsonl")
    predicted, evaluated = read_results(tmp_path / "p.jsonl"), read_results(tmp_path / "e.jsonl")
    assert [(r.target, r.answer) for r in predicted] == [(r.target, r.answer) for r in evaluated]
    assert [r.loss for r in predicted] == [pytest.approx(r.loss, abs=1e-4) for r in evaluated]


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_file_that_cannot_be_is_refused_before_anything_is_loaded(foreword: Foreword, command: str, tmp_path: Path) -> None:
    there = tmp_path / "there.jsonl"
    there.write_text("mine", "utf-8")
    refused = {
        tmp_path / "r.csv": "'{}' ends in '.csv', but results are saved as .jsonl or .parquet; choose one of these endings.",
        there: "'{}' already exists; choose another name, or give --force to replace it.",
    }
    for file, sentence in refused.items():
        result = foreword(command, tmp_path / "no-adapter", tmp_path / "no-data", "--save", file)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == f"foreword: error: {sentence.format(file)}\n"
    result = foreword(command, tmp_path / "no-adapter", tmp_path / "no-data", "--force")
    assert result.stderr == "foreword: error: --force came without --save; give a file to replace, or leave --force out.\n"
    assert there.read_text("utf-8") == "mine"


def test_force_replaces_a_file(foreword: Foreword, trained: Path, reviews: Path, tmp_path: Path) -> None:
    for word in ("--force", "--overwrite"):
        (tmp_path / "r.jsonl").write_text("old", "utf-8")
        assert foreword("evaluate", trained, reviews, "--save", tmp_path / "r.jsonl", word).exit_code == 0
        assert len(read_results(tmp_path / "r.jsonl")) == 40


def test_a_text_is_streamed_or_saved(foreword: Foreword, writer: Path, tmp_path: Path) -> None:
    result = foreword("predict", writer, "x", "--stream", "--save", tmp_path / "r.jsonl")
    assert (
        result.stderr
        == "foreword: error: --stream and --save were both given, but results cannot be saved from a stream; leave one of them out.\n"
    )


def test_a_refused_text_leaves_no_file(foreword: Foreword, trained: Path, tmp_path: Path) -> None:
    texts = "\n".join([*(f"film {i}" for i in range(20)), "joy " * 400])
    result = foreword("predict", trained, "--batch-size", 1, "--save", tmp_path / "r.jsonl", input=texts)
    assert result.exit_code != 0 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [("evaluate",), ("predict", "--file")], ids=lambda words: words[0])
def test_the_examples_themselves_are_never_replaced(
    foreword: Foreword, trained: Path, reviews: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_bytes(reviews.read_bytes())
    result = foreword(words[0], trained, *words[1:], data, "--save", data, "--force")
    assert result.exit_code == 2
    assert f"'{data}' holds the examples themselves, and --save would replace them; choose another file." in result.stderr
    assert data.read_bytes() == reviews.read_bytes()


def test_a_link_is_followed_and_not_replaced(foreword: Foreword, trained: Path, reviews: Path, tmp_path: Path) -> None:
    link, target = tmp_path / "link.jsonl", tmp_path / "target.jsonl"
    link.symlink_to(target)
    assert foreword("evaluate", trained, reviews, "--save", link).exit_code == 2, "a link is a file, even one that points nowhere"
    assert foreword("evaluate", trained, reviews, "--save", link, "--force").exit_code == 0
    assert link.is_symlink() and len(read_results(str(target))) == 40


def test_a_folder_that_takes_no_files_is_refused_before_anything_is_loaded(foreword: Foreword, reviews: Path) -> None:
    result = foreword("evaluate", "no such adapter", reviews, "--save", "/proc/results.jsonl")
    assert result.exit_code == 2 and "'/proc/results.jsonl' cannot be written (" in result.stderr
