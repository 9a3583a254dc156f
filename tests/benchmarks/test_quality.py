"""The quality benchmark: real trainings on a tiny model, and an order of runs that can be stopped and gone on with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import quality
import runs
import store
import theirs
from runs import RATES, Run
from trainers import PeftLoop, Setting, run_one

from foreword.demo.corpora import Split, rotten_tomatoes
from foreword.methods import METHODS

BIRTH = {"seeds": [0, 1, 2], "command": "python benchmarks/quality.py"}
SHARED = {"steps": 200}


def examples(begin: int, count: int) -> list[dict[str, str]]:
    words = ("a joy to watch", "a dull mess of a film")
    return [{"text": f"{words[i % 2]} {i}", "label": ("positive", "negative")[i % 2]} for i in range(begin, begin + count)]


def setting(folder: str) -> Setting:
    return Setting(folder, Split(examples(0, 8), examples(8, 4), examples(12, 6)), steps=2, length=4)


def made_up(run: Run, value: float = 0.5) -> dict[str, Any]:
    scores = {"accuracy": {"value": value, "stderr": 0.01, "n": 1000}}
    return {**vars(run), "monitor": value, "valid": scores, "test": scores, "diverged": None, "seconds": 1.0}


def go_on(path: Path, train: Callable[[Run], dict[str, Any]], *, only: str = "*", again: bool = False, minutes: float = 1e9) -> bool:
    plan = partial(runs.wanted, seeds=BIRTH["seeds"])
    return quality.go_on(path, SHARED, BIRTH, train, plan=plan, only=only, again=again, minutes=minutes)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks by the old name
@pytest.mark.parametrize(
    "run",
    [Run("foreword", method, "default", None, 0) for method in METHODS] + [runs.sweep(method, 0)[0] for method in RATES],
    ids=lambda run: run.name,
)
def test_a_run_trains_and_is_evaluated(folder: str, run: Run) -> None:
    from foreword.backbone.loading.load_model import load

    result = run_one(run, setting(folder), load(folder))
    assert {name: result[name] for name in vars(run)} == vars(run)
    assert (result["valid"]["accuracy"]["n"], result["test"]["accuracy"]["n"], result["diverged"]) == (4, 6, None)
    assert 0 <= result["test"]["accuracy"]["value"] <= 1
    assert 0 < result["test"]["loss"]["value"] < 20


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize(("method", "variant"), [(method, variant) for method in RATES for variant in RATES[method]])
def test_peft_trains_its_prompt_alone_and_scores_no_pads(folder: str, method: str, variant: str) -> None:
    import models

    from foreword.backbone.loading.load_model import load

    peft = theirs.attach(models.network(folder), folder, theirs.VARIANTS[method][variant], length=4, text="negative or positive")
    assert all("prompt_encoder" in name for name, parameter in peft.named_parameters() if parameter.requires_grad)
    loop = PeftLoop(peft, load(folder), setting(folder), Run("peft", method, variant, 1e-2, 0))
    mixed = [loop.rows[0], loop.rows[1]]
    assert len(mixed[0].ids) != len(mixed[1].ids)
    together, sizes = theirs.token_losses(peft, mixed, 0)
    alone = [theirs.token_losses(peft, [row], 0)[0] for row in mixed]
    assert sizes == [len(part) for part in alone]
    for part, single in zip(together.split(sizes), alone, strict=True):
        assert part.tolist() == pytest.approx(single.tolist(), abs=1e-4)
    before = [parameter.detach().clone() for parameter in loop.parameters]
    assert loop._step(0)
    assert any(bool((old != new).any()) for old, new in zip(before, loop.parameters, strict=True))


def test_every_variant_has_rates_and_a_configuration() -> None:
    assert {method: set(rates) for method, rates in RATES.items()} == {method: set(found) for method, found in theirs.VARIANTS.items()}
    assert list(RATES) == list(METHODS)
    assert all(len(rates) == 3 for found in RATES.values() for rates in found.values())


def test_runs_are_kept_one_by_one_and_gone_on_with(tmp_path: Path) -> None:
    path, done = tmp_path / "quality.json", []

    def train(run: Run) -> dict[str, Any]:
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(run)
        return made_up(run)

    with pytest.raises(KeyboardInterrupt):
        go_on(path, train)
    assert [runs.run_of(one) for one in store.read(path)["runs"]] == done
    assert [run.name for run in done][3:] == ["foreword/p-tuning-v2/default/default/seed0", "peft/prompt-tuning/text/0.01/seed0"]
    rest: list[Run] = []
    assert go_on(path, lambda run: rest.append(run) or made_up(run))
    assert not set(rest) & set(done)
    assert len({*rest, *done}) == len(rest) + len(done) == 4 + 4 * 3 + 2 * (4 + 4)
    assert [run.method for run in (*done, *rest)] == list(METHODS) * 4 + [method for method in METHODS for _ in "ab"] * 2
    assert store.read(path)["sessions"] == [BIRTH]


def test_further_seeds_are_for_the_best_rate(tmp_path: Path) -> None:
    path = tmp_path / "quality.json"
    go_on(path, lambda run: made_up(run, 0.9 if run.rate == 3e-2 else 0.5), only="*/prompt-tuning/*")
    later = [one for one in store.read(path)["runs"] if one["system"] == "peft" and one["seed"]]
    assert [(one["variant"], one["rate"], one["seed"]) for one in later] == [("text", 3e-2, 1), ("text", 3e-2, 2)]
    assert runs.best(store.read(path)["runs"], "prompt-tuning", 0) == Run("peft", "prompt-tuning", "text", 3e-2, 0)
    assert runs.best(store.read(path)["runs"], "p-tuning", 0) is None


def test_fresh_sentences_take_the_rates_that_were_chosen(tmp_path: Path) -> None:
    path = tmp_path / "quality.json"
    go_on(path, lambda run: made_up(run, 0.9 if run.rate == 3e-2 else 0.5), only="*/prompt-tuning/*")
    found = list(runs.wanted([], [0, 1], swept=store.read(path)["runs"]))
    assert [run for run in found if run.system == "peft"] == [Run("peft", "prompt-tuning", "text", 3e-2, seed) for seed in (0, 1)]
    assert [(run.method, run.seed) for run in found if run.system == "foreword"] == [
        (method, seed) for seed in (0, 1) for method in METHODS
    ]


def test_fresh_sentences_are_in_no_other_part() -> None:
    split = rotten_tomatoes(train=3200, valid=200, test=500)
    texts = [example["text"] for example in quality.fresh_sentences(split)]
    assert len(set(texts)) == 2000 and not set(texts) & {example["text"] for part in split for example in part}


def test_a_diverged_rate_is_never_the_best(tmp_path: Path) -> None:
    path = tmp_path / "quality.json"
    go_on(path, lambda run: {**made_up(run), "monitor": -0.5 if run.rate == 1e-3 else float("nan")}, only="peft/p-tuning/*")
    assert runs.best(store.read(path)["runs"], "p-tuning", 0) == Run("peft", "p-tuning", "mlp", 1e-3, 0)


def test_no_run_begins_that_may_end_too_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100_000, 30))
    monkeypatch.setattr(quality, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    path = tmp_path / "quality.json"
    assert not go_on(path, made_up, minutes=4)
    assert len(store.read(path)["runs"]) == 3


def test_runs_done_again_replace_the_old_ones(tmp_path: Path) -> None:
    path, only = tmp_path / "quality.json", "foreword/*/seed0"
    go_on(path, made_up, only=only)
    assert go_on(path, lambda run: made_up(run, 0.7), only=only, again=True)
    assert [one["monitor"] for one in store.read(path)["runs"]] == [0.7] * 4


def test_another_setting_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "quality.json"
    go_on(path, made_up, only="foreword/prompt-tuning/*/seed0")
    with pytest.raises(ValueError) as error:
        quality.check(path, store.read(path), {"steps": 10})
    assert str(error.value) == "'quality.json' holds runs of another setting (data, task or steps); give another --out, or move it away."
