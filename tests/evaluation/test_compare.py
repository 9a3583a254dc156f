"""Which runs of a comparison are missing, what is kept and when, how rates are chosen, and every refusal: with work that is only pretended."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foreword.errors import DataError, ModelError, UsageError
from foreword.evaluation.compare import Comparison, Run, rates
from foreword.evaluation.run_config import RunConfig
from foreword.methods import named
from foreword.recipe import Recipe
from foreword.training.plan import TrainPlan

ROWS = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(6)]
SEEN = {"facts": {"base model": "0123"}, "kind": "causal", "refused": {}}
METHODS = ("lora", "zero-shot", "few-shot")


class Pretended:
    """Work that notes what it is asked for and answers at once."""

    def __init__(self, answer: Callable[[dict[str, Any]], dict[str, Any]] | None = None, look: dict[str, Any] | None = None) -> None:
        self.answer, self.seen, self.asked = answer or score, look or {"status": "done", **SEEN}, []

    def __call__(self, job: dict[str, Any], listener: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        if job["do"] == "look":
            return self.seen
        self.asked.append((job["recipe"]["method"], job["seed"], job["rate"]))
        listener({"event": "step", "step": 1})
        return self.answer(job)


def score(job: dict[str, Any], value: float = 0.5, monitor: float | None = 0.0) -> dict[str, Any]:
    scores = {"accuracy": {"value": value, "stderr": 0.1, "n": 2}}
    return {"status": "done", "scores": scores, "monitor": monitor, "bytes": 1, "seconds": 1.0}


def comparison(out: Path, names: tuple[str, ...] = METHODS, *, seeds: int = 2, tune: int = 1, steps: int = 4, **changes: Any) -> Comparison:
    setting = RunConfig("model", {"kind": "classify"}, TrainPlan(steps=steps), ROWS[:2], ROWS[2:4], ROWS[4:])
    return Comparison(setting, {**{name: named(name) for name in names}, **changes}, seeds, out, tune=tune)


def done(made: Comparison, work: Pretended, **length_budget: Any) -> bool:
    made.look(work)
    return made.go_on(work, lambda run, event: None, **length_budget)


def test_all_methods_see_one_seed_before_the_next_and_a_written_prompt_is_read_once(tmp_path: Path) -> None:
    work, made = Pretended(), comparison(tmp_path)
    assert done(made, work)
    assert work.asked == [("lora", 0, None), ("zero-shot", 0, None), ("few-shot", 0, None), ("lora", 1, None), ("few-shot", 1, None)]
    assert [(row["method"], row["seed"]) for row in made.rows()] == [(method, seed) for method, seed, _ in work.asked]
    assert made.finished() == made.total() == 5
    kept = json.loads((tmp_path / "compare.json").read_text("utf-8"))
    assert kept["setting"]["base model"] == "0123"
    assert kept["setting"]["steps"] == 4
    assert kept["rows"] == made.rows()


def test_what_is_done_is_not_done_again_and_a_stop_keeps_it(tmp_path: Path) -> None:
    def stopped(job: dict[str, Any]) -> dict[str, Any]:
        if job["recipe"]["method"] == "few-shot":
            raise KeyboardInterrupt
        return score(job)

    with pytest.raises(KeyboardInterrupt):
        done(comparison(tmp_path), Pretended(stopped))
    work = Pretended()
    assert done(comparison(tmp_path), work)
    assert work.asked == [("few-shot", 0, None), ("lora", 1, None), ("few-shot", 1, None)]
    again = Pretended()
    assert done(comparison(tmp_path), again)
    assert again.asked == []


def test_more_methods_and_seeds_are_added_and_fewer_are_shown(tmp_path: Path) -> None:
    done(comparison(tmp_path, ("lora",), seeds=1), Pretended())
    work, more = Pretended(), comparison(tmp_path, ("lora", "full"), seeds=2)
    done(more, work)
    assert work.asked == [("full", 0, None), ("lora", 1, None), ("full", 1, None)]
    less = comparison(tmp_path, ("full",), seeds=1)
    assert done(less, Pretended())
    assert [Run.of(row) for row in less.rows()] == [Run("full", 0)]


def test_every_method_gets_as_many_rates_and_the_best_on_validation_serves_all_seeds(tmp_path: Path) -> None:
    def answer(job: dict[str, Any]) -> dict[str, Any]:
        return score(job, value=0.9 if job["rate"] is None else 0.1, monitor=-1.0 if job["rate"] is None else -job["rate"])

    work, made = Pretended(answer), comparison(tmp_path, ("lora", "prefix-tuning", "zero-shot"), tune=3)
    assert done(made, work)
    first, second = (rates(named(name), 3, "classify", "causal") for name in ("lora", "prefix-tuning"))
    assert first == [None, 0.0015, 0.00017]
    assert [run for run in work.asked if run[1] == 0] == [
        *(("lora", 0, rate) for rate in first),
        *(("prefix-tuning", 0, rate) for rate in second),
        ("zero-shot", 0, None),
    ]
    assert [run for run in work.asked if run[1] == 1] == [
        ("lora", 1, min(filter(None, first))),
        ("prefix-tuning", 1, min(filter(None, second))),
    ]
    assert [row["scores"]["accuracy"]["value"] for row in made.rows()] == [0.1, 0.1, 0.9, 0.1, 0.1], "test scores choose nothing"
    assert made.finished() == made.total() == 9
    assert "lora-seed-1-rate-0.00017" in [Run.of(row).folder for row in made.rows()]


def test_the_method_s_own_rate_counts_as_one_of_those_tried(tmp_path: Path) -> None:
    done(comparison(tmp_path, ("lora",)), Pretended())
    work = Pretended(lambda job: score(job, monitor=-1.0))
    done(comparison(tmp_path, ("lora",), tune=2), work)
    assert work.asked == [("lora", 0, 0.0015)], "its own was the better one, and both seeds of that are done"


def test_a_diverged_run_is_a_row_and_a_diverged_rate_is_never_chosen(tmp_path: Path) -> None:
    def answer(job: dict[str, Any]) -> dict[str, Any]:
        return {"status": "diverged", "reason": "the loss became nan."} if job["rate"] is None else score(job, monitor=-9.0)

    made = comparison(tmp_path, ("lora",), seeds=1)
    assert done(made, Pretended(answer))
    assert [(row["status"], row["reason"], row["scores"]) for row in made.rows()] == [("diverged", "the loss became nan.", {})]
    again = Pretended(answer)
    tuned = comparison(tmp_path, ("lora",), seeds=1, tune=2)
    assert done(tuned, again)
    assert again.asked == [("lora", 0, 0.0015)]
    assert [row["status"] for row in tuned.rows()] == ["done"]


def test_a_process_that_died_is_a_row_now_and_tried_again_next_time(tmp_path: Path) -> None:
    made = comparison(tmp_path, ("lora",), seeds=1)
    assert done(made, Pretended(lambda job: {"status": "failed", "reason": "its process was stopped by SIGKILL."}))
    assert [row["status"] for row in made.rows()] == ["failed"]
    again = comparison(tmp_path, ("lora",), seeds=1)
    assert done(again, Pretended())
    assert [row["status"] for row in again.rows()] == ["done"]


def test_a_refused_method_is_a_row_and_the_others_go_on(tmp_path: Path) -> None:
    def answer(job: dict[str, Any]) -> dict[str, Any]:
        return {"status": "refused", "error": "ModelError", "reason": "no."} if job["recipe"]["method"] == "full" else score(job)

    work = Pretended(answer, {"status": "done", "facts": {}, "kind": "causal", "refused": {"lora": "not here."}})
    made = comparison(tmp_path, ("lora", "full", "zero-shot"))
    assert done(made, work)
    assert [method for method, _, _ in work.asked] == ["full", "zero-shot"]
    assert [(row["method"], row["status"], row.get("reason")) for row in made.rows()] == [
        ("zero-shot", "done", None),
        ("lora", "refused", "not here."),
        ("full", "refused", "no."),
    ]
    assert [row["method"] for row in json.loads((tmp_path / "compare.json").read_text("utf-8"))["rows"]] == ["zero-shot"]


def test_when_all_are_refused_nothing_can_be_compared(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as early:
        done(
            comparison(tmp_path, ("lora", "full")),
            Pretended(look={"status": "done", "facts": {}, "kind": "causal", "refused": {"lora": "a.", "full": "b."}}),
        )
    assert str(early.value) == "no method of lora, full can do this (lora: a; full: b)."
    with pytest.raises(UsageError) as late:
        done(comparison(tmp_path, ("lora",)), Pretended(lambda job: {"status": "refused", "error": "ModelError", "reason": "a."}))
    assert str(late.value) == "no method of lora can do this (lora: a)."


def test_what_no_method_could_do_is_the_error_it_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^label 'c' is wrong\.$"):
        comparison(tmp_path).look(Pretended(look={"status": "refused", "error": "DataError", "reason": "label 'c' is wrong."}))
    with pytest.raises(ModelError) as died:
        comparison(tmp_path).look(Pretended(look={"status": "failed", "reason": "its process was stopped by SIGKILL."}))
    assert str(died.value) == "model 'model' could not be loaded in a new process (its process was stopped by SIGKILL)."


def test_no_run_begins_that_may_end_after_the_budget(tmp_path: Path) -> None:
    work = Pretended()
    assert not done(comparison(tmp_path), work, minutes=-1.0)
    assert work.asked == []
    assert done(comparison(tmp_path), work, minutes=10.0)


def test_results_of_another_setting_are_refused(tmp_path: Path) -> None:
    done(comparison(tmp_path, ("lora",)), Pretended())
    end = "; repeat the options of those runs, or give another --out."
    with pytest.raises(UsageError) as other:
        done(comparison(tmp_path, ("lora",), steps=5), Pretended())
    assert str(other.value) == f"'{tmp_path}/compare.json' holds runs of another setting (steps: 4, now 5){end}"
    with pytest.raises(UsageError) as model:
        done(
            comparison(tmp_path, ("lora",)),
            Pretended(look={"status": "done", "facts": {"base model": "4567"}, "kind": "causal", "refused": {}}),
        )
    assert str(model.value) == f'\'{tmp_path}/compare.json\' holds runs of another setting (base model: "0123", now "4567"){end}'
    with pytest.raises(UsageError) as recipe:
        done(comparison(tmp_path, ("lora",), lora=Recipe.of(named("lora").lora.__class__(r=2))), Pretended())
    assert str(recipe.value) == f"'{tmp_path}/compare.json' holds runs of lora with other options{end}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "'{}' is not a results file of a comparison; give another --out, or move it away."),
        ("[]", "'{}' is not a results file of a comparison; give another --out, or move it away."),
        ('{"format": 9, "setting": {}, "rows": []}', "'{}' has format 9, but this version reads 1; give another --out."),
    ],
)
def test_files_that_are_no_results_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "compare.json"
    path.write_text(content, "utf-8")
    with pytest.raises(UsageError) as refused:
        comparison(tmp_path)
    assert str(refused.value) == message.format(path)
    assert path.read_text("utf-8") == content


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(UsageError) as refused:
        comparison(tmp_path / "file" / "out")
    assert str(refused.value) == f"folder '{tmp_path}/file/out' cannot be made (Not a directory); choose another --out."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "the number of seeds is 0, but it must be at least 1; 3 or more show how far runs differ."),
        ({"tune": 0}, "0 learning rates were asked for, but 1 to 9 can be tried; 3 is common."),
        ({"tune": 10}, "10 learning rates were asked for, but 1 to 9 can be tried; 3 is common."),
    ],
)
def test_numbers_that_cannot_be(tmp_path: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        comparison(tmp_path / "new", **options)
    assert str(refused.value) == message
    assert not (tmp_path / "new").exists()
