"""Real jobs in real processes: what they measure, and what becomes of one that diverges or dies."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from foreword.adapters.adapter import Adapter
from foreword.backbone.loading.load_model import load
from foreword.evaluation.evaluate import Reader
from foreword.evaluation.example_results import read_results
from foreword.evaluation.run_config import RunConfig
from foreword.evaluation.subprocess_pool import Processes
from foreword.methods import WRITTEN, named
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.head_classify import HeadClassify
from foreword.training.plan import TrainPlan

TEXTS = [("a joy to watch", "good"), ("a dull mess", "bad"), ("great film", "good"), ("it was terrible", "bad")]
ROWS = [{"text": f"{text} {i}", "label": label} for i in range(5) for text, label in TEXTS]
PLAN = TrainPlan(steps=4, eval_every=2, batch_size=4, tracker="none")
WORDS, HEAD = Classify(("bad", "good")), HeadClassify(("bad", "good"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model") / "tiny", 1.0)


@pytest.fixture(scope="module")
def work() -> Iterator[Processes]:
    with Processes() as processes:
        yield processes


def save(path: Path, loud: float) -> Path:
    """A tiny model in a folder, its attention's output `loud` times as large."""
    network = tiny.network("llama")
    with torch.no_grad():
        for layer in network.model.layers:
            layer.self_attn.o_proj.weight.mul_(loud)
    network.save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return path


def job(
    folder: Path, task: Any, method: str, out: Path, *, seed: int = 0, rate: float | None = None, plan: TrainPlan = PLAN, **changes: Any
) -> Any:
    setting = RunConfig(str(folder), task.to_dict(), plan, ROWS[:12], ROWS[12:16], ROWS[16:], **changes)
    recipe = named(method).to_dict()
    written = method in WRITTEN
    return {
        "do": "run",
        "setting": setting.to_dict(),
        "recipe": recipe,
        "written": written,
        "seed": seed,
        "rate": rate,
        "adapter": str(out / "a"),
        "examples": str(out / "examples" / "a.jsonl"),
    }


def silent(event: dict[str, Any]) -> None:
    return


def test_a_run_says_what_it_learned_and_what_that_cost(work: Processes, folder: Path, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    found = work(job(folder, WORDS, "prefix-tuning", tmp_path), events.append)
    adapter = Adapter.load(tmp_path / "a")
    scores, _ = Reader.of(load(folder), adapter).evaluate(ROWS[16:])
    assert found["status"] == "done"
    assert found["scores"] == {name: score.to_dict() for name, score in scores.items()}
    assert found["valid"] == adapter.scores
    assert found["monitor"] == -adapter.scores["loss"]["value"]
    assert found["num_parameters"] == adapter.num_parameters == 20 * 2 * 2 * 32
    assert found["num_trained"] > found["num_parameters"], "the network that makes the prefix is trained too"
    assert found["bytes"] == (tmp_path / "a/adapter_model.safetensors").stat().st_size
    assert found["steps"] == 4
    assert [event["step"] for event in events if event["event"] == "step"] == [1, 2, 3, 4]
    assert sum(event["texts"] for event in events if event["event"] == "evaluated") == 4
    assert found["latency"]["low"] <= found["latency"]["ratio"] <= found["latency"]["high"]


def test_no_run_inherits_the_memory_of_an_earlier_one(work: Processes, tmp_path: Path, folder: Path) -> None:
    wide = tmp_path / "wide"
    tiny.network("llama", hidden_size=512, intermediate_size=4096).save_pretrained(wide)
    tiny.tokenizer().save_pretrained(wide)
    small, large, again = (work(job(where, WORDS, "prompt-tuning", tmp_path), silent)["peak_memory"] for where in (folder, wide, folder))
    assert large > small + 40e6
    assert again < small + 15e6


@pytest.mark.parametrize("method", WRITTEN)
def test_a_written_prompt_trains_nothing(work: Processes, folder: Path, tmp_path: Path, method: str) -> None:
    found = work(job(folder, WORDS, method, tmp_path), silent)
    assert (found["num_trained"], found["bytes"], found["steps"], found["peak_memory"]) == (0, 0, 0, None)
    assert found["scores"]["accuracy"]["n"] == 4
    assert found["answering_memory"] > 0
    results = read_results(Path(found["examples"]))
    assert [result.input["text"] for result in results] == [row["text"] for row in ROWS[16:]]
    assert sum(result.answer == result.target for result in results) / 4 == found["scores"]["accuracy"]["value"]
    assert sum(result.loss or 0.0 for result in results) / 4 == pytest.approx(found["scores"]["loss"]["value"])


def test_texts_are_written_and_evaluated(work: Processes, folder: Path, tmp_path: Path) -> None:
    pairs = [{"input": row["text"], "output": row["label"]} for row in ROWS]
    asked = job(folder, Generate(max_new_tokens=16), "lora", tmp_path)
    asked["setting"] |= {
        name: [[row, None] for row in part] for name, part in (("train", pairs[:12]), ("valid", pairs[12:16]), ("test", pairs[16:]))
    }
    found = work(asked, silent)
    assert found["scores"]["rouge_l"]["n"] == 4
    assert found["latency"]["n"] == 4


@pytest.mark.parametrize("method", ["p-tuning-v2", "head-only"])
def test_a_head_answers_with_a_method_and_alone(work: Processes, folder: Path, tmp_path: Path, method: str) -> None:
    found = work(job(folder, HEAD, method, tmp_path), silent)
    assert found["status"] == "done"
    assert found["num_trained"] == (0 if method == "head-only" else 20 * 2 * 2 * 32) + 2 * 32


def test_what_a_task_cannot_do_is_refused_before_any_run(work: Processes, folder: Path, tmp_path: Path) -> None:
    asked = job(folder, HEAD, "head-only", tmp_path)
    recipes = {name: named(name).to_dict() for name in ("lora", "zero-shot")}
    found = work({"do": "look", "setting": asked["setting"], "recipes": recipes, "written": list(WRITTEN)}, silent)
    assert found["refused"] == {
        "zero-shot": "a 'classify-head' task has a head, which must be trained; a written prompt can classify by label words, or generate."
    }
    assert found["facts"] == {
        "base model": load(folder).fingerprint,
        "tokenizer": load(folder).tokenizer_fingerprint,
        "device": "cpu",
        "precision": "float32",
    }
    asked = job(folder, WORDS, "lora", tmp_path)
    found = work({"do": "look", "setting": asked["setting"], "recipes": {"head-only": named("head-only").to_dict()}, "written": []}, silent)
    assert found["refused"] == {
        "head-only": "method 'head-only' trains nothing of task 'classify', which has no head; evaluate it as it is."
    }


def test_data_that_no_method_can_read_is_refused(work: Processes, folder: Path, tmp_path: Path) -> None:
    asked = job(folder, WORDS, "lora", tmp_path)
    asked["setting"]["test"] = [[{"text": "a joy", "label": "new"}, "row 7 of 'test.jsonl'"]]
    found = work({"do": "look", "setting": asked["setting"], "recipes": {}, "written": []}, silent)
    assert (found["status"], found["error"]) == ("refused", "DataError")
    assert found["reason"] == "row 7 of 'test.jsonl': label 'new' is not one of bad, good; correct the data, or train with this label."


def test_a_divergence_is_an_outcome(work: Processes, tmp_path: Path) -> None:
    plan = TrainPlan(steps=100, eval_every=50, batch_size=4, warmup=0.5, tracker="none")
    loud = save(tmp_path / "loud", 1000.0)
    found = work(job(loud, WORDS, "p-tuning-v2", tmp_path, rate=10.0, plan=plan, dtype="float16"), silent)
    assert found["status"] == "diverged"
    assert "are not finite in float16, even with a loss scale of 1; train again with --dtype bfloat16 or float32." in found["reason"]


def test_a_process_that_dies_is_an_outcome_and_the_next_job_is_done(work: Processes, folder: Path, tmp_path: Path) -> None:
    def kill(event: dict[str, Any]) -> None:
        if event["event"] == "start":
            server = work._server
            assert server is not None
            children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text("utf-8")
            os.kill(int(children), signal.SIGKILL)

    found = work(job(folder, WORDS, "prompt-tuning", tmp_path), kill)
    assert found == {
        "status": "failed",
        "reason": "its process was stopped by SIGKILL, which the operating system does when memory is full.",
    }
    assert work(job(folder, WORDS, "zero-shot", tmp_path), silent)["status"] == "done"


def test_an_accident_names_itself(work: Processes, folder: Path, tmp_path: Path) -> None:
    asked = json.loads(json.dumps(job(folder, WORDS, "zero-shot", tmp_path)))
    del asked["setting"]["model"]
    found = work(asked, silent)
    assert found["status"] == "failed"
    assert found["reason"].startswith("its process ended with exit code 1 (TypeError: ")
