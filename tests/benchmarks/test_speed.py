"""The speed benchmark on a tiny model: two processes, the same batch, arithmetic that a counter confirms."""

from __future__ import annotations

import json
import math
import socket
from pathlib import Path

import flops
import models
import provenance
import pytest
import speed
import tables
from sides import Case, Ours, Theirs, Work
from torch.utils.flop_counter import FlopCounterMode

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks by the old name

WORK = Work(tuple((1, *range(20 + row, 35 + row)) for row in range(2)), 2)
METHODS = ("prompt-tuning", "prefix-tuning", "p-tuning-v2")


def case(folder: str, method: str, *, keep: bool = False) -> Case:
    return Case(f"tiny {method}", method, folder, keep=keep, length=4, memory=0.6)


def test_both_sides_step_in_processes_of_their_own(folder: str) -> None:
    found = speed.measure(case(folder, "prefix-tuning"), WORK, rounds=2, steps=1, warmup=1, threads=1)
    assert [sorted(one) for one in found["rounds"]] == [["foreword", "peak_flops", "peft"]] * 2
    for side in ("foreword", "peft"):
        assert all(math.isfinite(one[side]["loss"]) and one[side]["seconds"] > 0 for one in found["rounds"])
        assert found["memory"][side]["peak"] == found["memory"][side]["idle"] + found["memory"][side]["above_idle"] > 0
        assert found["tokens_per_second"][side]["least"] <= found["tokens_per_second"][side]["median"]
    assert 0 < found["share_of_peak"]["median"] < 1
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("method", METHODS)
def test_both_sides_learn(folder: str, method: str) -> None:
    for side in (Ours, Theirs):
        one = side(models.network(folder), case(folder, method), WORK)
        losses = [one.step() for _ in range(2)]
        assert losses[1] < losses[0], side


def test_keeping_few_logits_changes_no_loss(folder: str) -> None:
    few, all_logits = (Theirs(models.network(folder), case(folder, "prompt-tuning", keep=keep), WORK) for keep in (True, False))
    assert few.step() == pytest.approx(all_logits.step(), abs=1e-5)


@pytest.mark.parametrize("method", ["prompt-tuning", "p-tuning-v2"])  # an encoder would be most of the work of so small a model
def test_needed_operations_are_not_more_than_are_done(folder: str, method: str) -> None:
    one = Ours(models.network(folder), case(folder, method), WORK)
    with FlopCounterMode(display=False) as counter:
        one.step()
    soft, prefix = (4, 0) if method == "prompt-tuning" else (0, 4)
    needed = flops.needed(one.model.network, 2, 16, soft=soft, prefix=prefix, labels=4)
    assert 0.5 * counter.get_total_flops() < needed <= counter.get_total_flops()


def test_the_batch_is_real_text_of_one_length(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = [{"text": "a joy to watch and a dull mess of a film", "label": "positive"}] * 9
    monkeypatch.setattr("foreword.demo.corpora.rotten_tomatoes", lambda **sizes: type("Split", (), {"test": sentences}))
    work = speed.text_work(folder, rows=3, tokens=12, labels=2)
    assert [len(ids) for ids in work.rows] == [12, 12, 12]
    assert [ids[0] for ids in work.rows] == [1, 1, 1]
    assert work.num_tokens == 36
    assert speed.text_work(models.SMALL).num_tokens == 1024


def test_provenance_names_no_host_and_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [str(tmp_path / "speed.py"), "--out", str(tmp_path / "speed.json"), "--only", "prompt tuning*"])
    born = provenance.provenance([0], 2)
    assert born["command"] == "python benchmarks/speed.py --out speed.json --only 'prompt tuning*'"
    assert sorted(born) == ["command", "commit", "date", "dirty", "machine", "seeds", "versions"]
    text = json.dumps(born)
    assert socket.gethostname() not in text
    assert str(Path.home()) not in text
    assert set(provenance.PACKAGES) < set(born["versions"])
    assert born["commit"] in tables.birthplace(born)


def test_a_pattern_that_matches_no_case_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        speed.main(["--only", "prompt"])
    names = "; ".join(one.name for one in speed.CASES)
    assert capsys.readouterr().err.splitlines()[-1] == f"benchmarks/speed.py: error: no case matches 'prompt'; the cases are: {names}."
