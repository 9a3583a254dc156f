"""The table in docs/compare.md is what the command prints for the kept results of a real run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foreword.cli.commands.compare import legend, table
from foreword.cli.support import output
from foreword.evaluation.report import lines

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_shows_what_the_command_printed(capsys: pytest.CaptureFixture[str]) -> None:
    kept = json.loads((ROOT / "benchmarks/results/compare.json").read_text("utf-8"))
    page = (ROOT / "docs/compare.md").read_text("utf-8")
    found = lines(kept["rows"], kept["metric"])
    output.show(table(found, kept["metric"]))
    assert f"```\n{capsys.readouterr().out}{legend(found, kept['metric'])}\n```\n" in page
    assert kept["command"].replace("minilm", "sentence-transformers/all-MiniLM-L6-v2") in page.replace(" \\\n    ", " ")
