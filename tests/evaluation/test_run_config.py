"""A setting in another process is the same setting."""

from __future__ import annotations

import json

from foreword.evaluation.run_config import RunConfig
from foreword.tasks.data.row_origin import LocatedRow
from foreword.training.plan import TrainPlan


def test_a_setting_goes_through_json_with_the_places_of_its_rows() -> None:
    rows = [LocatedRow({"text": "a", "label": "b"}, "row 1 of 'x.jsonl'"), {"text": "c\ud800", "label": "d"}]
    setting = RunConfig("model", {"kind": "classify"}, TrainPlan(steps=4), rows, rows[:1], rows[1:], written="{text} {answer}")
    found = RunConfig.from_dict(json.loads(json.dumps(setting.to_dict())))
    assert found == setting
    assert found.train[0].place == "row 1 of 'x.jsonl'"  # type: ignore[attr-defined]
    assert found.facts() == setting.facts()


def test_facts_name_what_runs_must_share_and_leave_out_what_runs_differ_in() -> None:
    facts = RunConfig("model", {"kind": "classify"}, TrainPlan(), [{"a": "b"}], [], []).facts()
    assert facts["training data"].startswith("1 examples, ")
    assert facts["task's kind"] == "classify"
    assert not {"seed", "learning_rate", "model"} & set(facts), "a model is known by its fingerprint, wherever it lies"
