"""The benchmark of start-up: real commands on real adapters, two rounds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import startup
import store


def test_every_command_starts_and_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "startup.json"
    startup.main(["--rounds", "2", "--out", str(out)])
    document = store.read(out)
    found = document["commands"]
    assert list(found) == ["python -c pass", "foreword --help", "foreword list", "foreword show"]
    assert found["python -c pass"]["times_python"]["median"] == 1
    for name in list(found)[1:]:
        assert found[name]["times_python"]["least"] > 1
        assert found[name]["met"] == (found[name]["seconds"]["median"] < 0.5)
    assert document["setting"] == {"rounds": 2, "adapters": 4, "seconds_at_most": 0.5}
    assert capsys.readouterr().out.count(" times python -c pass\n") == 4


def test_a_command_that_fails_is_no_measurement() -> None:
    failing = [sys.executable, "-c", "raise SystemExit('no such thing')"]
    with pytest.raises(RuntimeError) as error:
        startup.measure({"failing": failing}, 1)
    assert str(error.value) == "'failing' ended with 1: no such thing"
