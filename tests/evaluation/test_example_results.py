"""Results of single examples: every printed score can be computed from the file again, in either format, and nothing is read twice for them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from contract.triples import HEADED, JOBS, ONE, frozen

from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.frozen_model import FrozenModel
from foreword.errors import DataError, UsageError
from foreword.evaluation.evaluate import Reader
from foreword.evaluation.example_results import ExampleResult, check_path, open_results, read_results, write_results
from foreword.prompts.head import Head
from foreword.tasks.base import LengthBudget, Prediction, Task, budget_for
from foreword.tasks.metrics import base as metrics
from foreword.tasks.metrics.base import Score
from foreword.tasks.metrics.squad_metrics import answer_scores
from foreword.tasks.multilabel import MultiLabel

FORMATS = ("jsonl", "parquet")
ONE_RESULT = ExampleResult({"text": "a\u2028b"}, "yes", "no", None, {"yes": 0.25, "no": 0.75}, 1.5, 1)


def reader_of(kind: str, name: str | None = None, max_tokens: int | None = None) -> Reader:
    """A task on a tiny model without any prompt; its head is random."""
    model = frozen(name or ONE["encoder-decoder" if kind == "seq2seq" else "causal"])
    task: Task = JOBS[kind].task.for_model(model.info, None)
    head = Head(task.head, model.shape.hidden, seed=3).requires_grad_(False) if task.head else None
    length_budget = budget_for(None, model.info) if max_tokens is None else LengthBudget(0, max_tokens)
    return Reader(model, task, AdapterState(None, head), length_budget)


def kept(kind: str, path: Path, **how: int) -> tuple[Reader, dict[str, Score], list[ExampleResult]]:
    """A task with its scores, and its results as they come back from a file."""
    reader = reader_of(kind, **how)
    scores, _, results = reader.evaluate_examples(JOBS[kind].examples, batch_size=3)
    write_results(path, results)
    assert read_results(path) == results
    return reader, scores, results


def mean_loss(results: list[ExampleResult]) -> float:
    return sum((result.loss or 0.0) * result.num_losses for result in results) / sum(result.num_losses for result in results)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("kind", JOBS)
def test_every_task_s_scores_come_from_the_file(kind: str, suffix: str, tmp_path: Path) -> None:
    reader, scores, results = kept(kind, tmp_path / f"results.{suffix}")
    targets = [result.target or "" for result in results]
    assert reader.task.score([result.prediction for result in results], targets) == {k: s for k, s in scores.items() if k != "loss"}
    assert mean_loss(results) == pytest.approx(scores["loss"].value, rel=1e-9)
    assert sum(result.num_losses for result in results) == scores["loss"].n
    assert [result.input for result in results] == [{c: row[c] for c in reader.task.columns} for row in JOBS[kind].examples]
    assert targets == [row[reader.task.target] for row in JOBS[kind].examples]


@pytest.mark.parametrize("kind", ["classify", "classify-head"])
def test_accuracy_is_counted_from_the_file(kind: str, tmp_path: Path) -> None:
    _, scores, results = kept(kind, tmp_path / "results.jsonl")
    assert sum(result.answer == result.target for result in results) / len(results) == scores["accuracy"].value
    for result in results:
        assert max(result.scores, key=lambda label: result.scores[label] or 0.0) == result.answer
        assert sum(share or 0.0 for share in result.scores.values()) == pytest.approx(1, abs=1e-5)


def test_the_loss_of_a_head_is_that_of_its_probability(tmp_path: Path) -> None:
    _, _, results = kept("classify-head", tmp_path / "results.jsonl")
    for result in results:
        assert result.loss == pytest.approx(-math.log(result.scores[result.target or ""] or 0.0), abs=1e-4)


def test_rouge_is_computed_from_the_file(tmp_path: Path) -> None:
    _, scores, results = kept("generate", tmp_path / "results.jsonl")
    assert metrics.rouge_l([r.answer for r in results], [r.target or "" for r in results]) == scores["rouge_l"]


def test_token_accuracy_is_counted_from_the_file(tmp_path: Path) -> None:
    _, scores, results = kept("tag", tmp_path / "results.parquet")
    pairs = [pair for result in results for pair in zip(result.value, (result.target or "").split(), strict=True)]
    assert sum(tag == target for tag, target in pairs) / len(pairs) == scores["token_accuracy"].value


def test_answers_in_several_windows(tmp_path: Path) -> None:
    """The loss of a long context is the mean over its windows, whose number the file has."""
    reader = reader_of("qa", "bert", max_tokens=40)
    long = [
        {**row, "context": row["context"] + " It was a dull mess of a film that goes on." * 2 * n}
        for n, row in enumerate(JOBS["qa"].examples)
    ]
    scores, _, results = reader.evaluate_examples(long, batch_size=2)
    write_results(tmp_path / "results.parquet", results)
    found = read_results(tmp_path / "results.parquet")
    assert found[-1].num_losses > found[0].num_losses >= 1
    assert mean_loss(found) == pytest.approx(scores["loss"].value, rel=1e-9)
    f1 = answer_scores([result.answer for result in found], [[row["answers"]] for row in long])["f1"]
    assert f1 == scores["f1"]
    assert all(result.value["answer"] == result.answer for result in found)


@pytest.mark.parametrize("kind", ["generate", "qa", "tag", "choice"])
def test_each_loss_is_that_of_its_own_example(kind: str) -> None:
    """Examples are computed shortest first; the results stand in the order of the data."""
    reader = reader_of(kind)
    for rows in (JOBS[kind].examples, JOBS[kind].examples[::-1]):
        _, _, results = reader.evaluate_examples(rows, batch_size=3)
        alone = [reader.evaluate([row])[0]["loss"].value for row in rows]
        assert [result.loss for result in results] == [pytest.approx(loss, abs=1e-4) for loss in alone]


@pytest.mark.parametrize("kind", JOBS)
def test_results_cost_no_pass(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, read = reader_of(kind), []
    prepare = FrozenModel.prepare

    def counting(self: FrozenModel, batch, tokens=None, observers=()):
        read.append(len(batch.ids))
        return prepare(self, batch, tokens, observers)

    monkeypatch.setattr(FrozenModel, "prepare", counting)
    scores, cut = reader.evaluate(JOBS[kind].examples, batch_size=2)
    plain, read[:] = list(read), []
    found, found_cut, _ = reader.evaluate_examples(JOBS[kind].examples, batch_size=2)
    assert (found, found_cut, read) == (scores, cut, plain)
    if kind in HEADED:
        rows = [
            reader.task.eval_feature(row, reader.model.info, reader.length_budget, truncate=False)[0].rows for row in JOBS[kind].examples
        ]
        assert sum(read) == sum(map(len, rows))


def test_a_prediction_without_a_target_is_a_result_too() -> None:
    task = JOBS["classify"].task
    prediction = Prediction("yes", {"yes": 0.9, "no, maybe": 0.1}, {"yes": 0.5, "no, maybe": 2.0})
    assert ExampleResult.of(task, {"text": "x"}, prediction) == ExampleResult(
        {"text": "x"}, None, "yes", None, {"yes": 0.9, "no, maybe": 0.1}, None, 0
    )
    known = ExampleResult.of(task, {"text": "x", "label": "no, maybe", "more": "y"}, prediction)
    assert (known.input, known.target, known.loss, known.num_losses) == ({"text": "x"}, "no, maybe", 2.0, 1)


@pytest.mark.parametrize("suffix", FORMATS)
def test_numbers_that_are_not_finite_are_none(suffix: str, tmp_path: Path) -> None:
    task, path = MultiLabel(("a", "b")), tmp_path / f"r.{suffix}"
    prediction = Prediction("a", {"a": math.nan, "b": 0.5}, value={"log_odds": -math.inf, "all": [math.inf, 1.0]})
    write_results(path, [ExampleResult.of(task, {"text": "x", "label": "a"}, prediction, [math.inf, 1.0])])
    (found,) = read_results(path)
    assert (found.scores, found.value) == ({"a": None, "b": 0.5}, {"log_odds": None, "all": [None, 1.0]})
    assert (found.loss, found.num_losses) == (None, 2)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_appears_whole_or_not_at_all(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"r.{suffix}"
    with pytest.raises(KeyboardInterrupt), open_results(path) as write:
        write([ONE_RESULT])
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    write_results(path, [ONE_RESULT])
    with pytest.raises(KeyboardInterrupt), open_results(path) as write:
        write([replace(ONE_RESULT, answer="other")] * 3)
        raise KeyboardInterrupt
    assert read_results(path) == [ONE_RESULT] and list(tmp_path.iterdir()) == [path]
    with open_results(path) as write:
        write([ONE_RESULT])
        write([])
        write([replace(ONE_RESULT, target=None)])
    assert read_results(path) == [ONE_RESULT, replace(ONE_RESULT, target=None)]


def test_paths_that_are_refused(tmp_path: Path) -> None:
    there = tmp_path / "there.jsonl"
    there.write_text("mine", "utf-8")
    (tmp_path / "folder.jsonl").mkdir()
    refused = {
        "r.csv": "'{}' ends in '.csv', but results are saved as .jsonl or .parquet; choose one of these endings.",
        "r": "'{}' ends in '', but results are saved as .jsonl or .parquet; choose one of these endings.",
        "no/r.jsonl": "'{}' cannot be written, because there is no folder '" + str(tmp_path / "no") + "'; make it, or choose another file.",
        "folder.jsonl": "'{}' is a folder, but results are saved in a file; choose another name.",
        "there.jsonl": "'{}' already exists; choose another name, or give --force to replace it.",
    }
    for name, sentence in refused.items():
        with pytest.raises(UsageError) as caught:
            check_path(tmp_path / name)
        assert str(caught.value) == sentence.format(tmp_path / name)
    check_path(there, overwrite=True)
    check_path(tmp_path / "new.parquet")
    assert there.read_text("utf-8") == "mine"


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        write_results(tmp_path / "no" / "r.jsonl", [ONE_RESULT])
    assert str(caught.value) == (
        f"'{tmp_path / 'no' / 'r.jsonl'}' cannot be written (No such file or directory); free some space or choose another place."
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [("r.jsonl", '{"input": {}}\n'), ("r.jsonl", "[]\n"), ("r.jsonl", "x"), ("r.parquet", "PAR1 not"), ("r.jsonl", "[1, 2")],
)
def test_other_files_are_no_results(name: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content, "utf-8")
    with pytest.raises(DataError) as caught:
        read_results(path)
    assert str(caught.value) == f"'{path}' does not hold the results of an evaluation; write it with foreword evaluate --save."
    with pytest.raises(DataError) as caught:
        read_results(tmp_path / "none.jsonl")
    assert str(caught.value) == f"'{tmp_path / 'none.jsonl'}' cannot be read (No such file or directory); check the path."
