"""`foreword demo` hands its options over; what the demo does is tested with the demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli.given import Foreword

from foreword.demo import run_demo


@pytest.mark.parametrize("options", [[], ["--quick", "--json"]], ids=" ".join)
def test_the_demo_gets_its_options_and_the_right_channel(
    foreword: Foreword, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: list[str]
) -> None:
    asked: dict[str, Any] = {}

    def recorded(**given: Any) -> dict[str, Any]:
        given.pop("console").print("a table")
        with given.pop("display")({"sentiment": "accuracy"}) as listener:
            listener("sentiment", {"event": "start", "step": 0, "steps": 1, "rows": 2})
        asked.update(given)
        return {"rows": [1]}

    monkeypatch.setattr(run_demo, "run", recorded)
    result = foreword("demo", "--out", tmp_path, *options)
    assert asked == {"out": tmp_path, "quick": "--quick" in options}
    assert result.exit_code == 0
    if "--json" in options:
        assert json.loads(result.stdout) == {"rows": [1]}
        assert result.stderr == "a table\nsentiment: training on 2 examples, step 0 of 1\n"
    else:
        assert (result.stdout, result.stderr) == ("a table\n", "sentiment: training on 2 examples, step 0 of 1\n")
