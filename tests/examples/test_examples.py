"""The examples do what they say, as a reader runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(name: str, *words: str | Path) -> list[str]:
    """What an example prints; its own message where it fails."""
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, words)]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_prefixes_choose_the_skill(tmp_path: Path) -> None:
    said = run("seq2seq_skills.py", "--quick", "--out", tmp_path / "skills.json")
    assert said[0] == "bart" and said[-1].startswith("worst with its prefix: ")
    found = json.loads((tmp_path / "skills.json").read_text("utf-8"))
    assert found["provenance"]["command"] == "python examples/seq2seq_skills.py --quick --out skills.json"
    skills = found["models"]["bart"]
    assert sorted(skills) == ["copy", "shift"]
    for scores in skills.values():
        assert scores["word"] >= found["asked"] and scores["prefix"] >= found["asked"]
        assert scores["guess"] < 0.8, "the weights alone must not know which skill is meant"
        assert 0 < scores["bytes"] < 40_000
