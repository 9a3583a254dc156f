"""Training steps of tasks with a head against PEFT, what lengths cost, and the memory that gradient checkpointing saves: benchmarks/README.md."""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import store
import torch
from nlu import folder
from peft import LoraConfig, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, TaskType, get_peft_model
from provenance import provenance
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar
from worker import forget_peak, highest, resident, touch

from foreword.backbone import frozen_model
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.loading.load_model import load
from foreword.demo.corpora import rotten_tomatoes, turkish_tags
from foreword.methods import named, recipe
from foreword.recipe import Recipe
from foreword.tasks.base import Example, Task, budget_for
from foreword.tasks.head_classify import HeadClassify
from foreword.tasks.tag import Tag
from foreword.training.initial_values import resolve_lora, setup_training
from foreword.training.sampler import BucketSampler

BATCH, LENGTH, RATE = 16, 20, 1e-3
BUCKETS = 1.3
Step = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """A recipe of ours and PEFT's configuration of the same kind, with its own defaults; the encoder as wide as ours where there is one."""

    name: str
    what: str
    peft: Any
    tag: bool = False


CASES = (
    Case("classify, prompt tuning", "prompt-tuning", PromptTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=LENGTH)),
    Case("classify, P-tuning", "p-tuning", PromptEncoderConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=LENGTH)),
    Case("classify, P-tuning v2", "p-tuning-v2", PrefixTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=LENGTH)),
    Case(
        "classify, prefix tuning",
        "prefix-tuning",
        PrefixTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=LENGTH, prefix_projection=True, encoder_hidden_size=512),
    ),
    Case("classify, LoRA", "lora", LoraConfig(task_type=TaskType.SEQ_CLS, r=8, target_modules=["query", "value"])),
    Case("tag, P-tuning v2", "p-tuning-v2", PrefixTuningConfig(task_type=TaskType.TOKEN_CLS, num_virtual_tokens=LENGTH), tag=True),
    Case("tag, LoRA", "lora", LoraConfig(task_type=TaskType.TOKEN_CLS, r=8, target_modules=["query", "value"]), tag=True),
)


def recipe_of(name: str) -> Recipe:
    return named(name) if name == "lora" else Recipe.of(recipe(name, length=LENGTH))


class Ours:
    """Foreword's step, as `fit` does it."""

    def __init__(self, model: FrozenModel, what: str, task: Task, rows: Sequence[Example]) -> None:
        made, lora = resolve_lora(recipe_of(what), model)
        self.task = task.for_model(model.info, made.prompt)
        length_budget = budget_for(made.prompt, model.info)
        self.train_features = [
            train_feature for row in rows for train_feature in self.task.train_features(row, model.info, length_budget)[0]
        ]
        self.model, self.tuning = setup_training(model, made, self.task, self.task.material(rows), self.train_features[:16], 0, lora)
        self.optimizer = torch.optim.AdamW([p for p in self.tuning.parameters() if p.requires_grad], lr=RATE)

    def step(self, batch: Sequence[int]) -> None:
        loss = self.task.losses(self.model, self.tuning(), [self.train_features[i] for i in batch]).losses.mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


class Theirs:
    """PEFT's step with the task model's own loss."""

    def __init__(self, source: str, case: Case, task: Task, rows: Sequence[Example]) -> None:
        assert isinstance(task, HeadClassify | Tag)
        names = list(task.labels)
        auto = AutoModelForTokenClassification if case.tag else AutoModelForSequenceClassification
        torch.manual_seed(0)
        self.model = get_peft_model(auto.from_pretrained(source, num_labels=len(names)), case.peft).eval()
        self.tokenizer, self.rows, self.names, self.tag = AutoTokenizer.from_pretrained(source), rows, names, case.tag
        self.optimizer = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], lr=RATE)
        self.read: dict[tuple[int, ...], dict[str, Any]] = {}

    def step(self, batch: Sequence[int]) -> None:
        key = tuple(batch)
        if key not in self.read:
            rows = [self.rows[i] for i in batch]
            self.read[key] = self._tagged(rows) if self.tag else self._labelled(rows)
        loss = self.model(**self.read[key]).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _labelled(self, rows: Sequence[Example]) -> dict[str, Any]:
        given = self.tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
        return {**given, "labels": torch.tensor([self.names.index(row["label"]) for row in rows])}

    def _tagged(self, rows: Sequence[Example]) -> dict[str, Any]:
        words, tags = ([json.loads(row[name]) for row in rows] for name in ("tokens", "tags"))
        return aligned(self.tokenizer, words, [[self.names.index(tag) for tag in each] for each in tags])


def aligned(tokenizer: PreTrainedTokenizerBase, words: list[list[str]], tags: list[list[int]]) -> dict[str, Any]:
    """Each word's tag at its first piece."""
    given = tokenizer(words, is_split_into_words=True, padding=True, return_tensors="pt")
    labels = torch.full(given["input_ids"].shape, -100)
    for row, mine in enumerate(tags):
        seen: set[int] = set()
        for column, word in enumerate(given.word_ids(row)):
            if word is not None and word not in seen:
                seen.add(word)
                labels[row, column] = mine[word]
    return {**given, "labels": labels}


def ratio(first: Step, second: Step, rounds: int) -> dict[str, float]:
    """Seconds of the second over those of the first, round by round, after one of each."""
    found = []
    for turn in range(rounds + 1):
        seconds = []
        for step in (first, second):
            begun = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - begun)
        if turn:
            found.append(seconds[1] / seconds[0])
    low, median, high = np.quantile(found, (0, 0.5, 1)).tolist()
    return {"median": median, "least": low, "most": high}


def data(tag: bool) -> tuple[list[Example], Task]:
    if tag:
        split = turkish_tags()
        return split.train[:400], Tag.of([*split.train, *split.valid, *split.test])
    return rotten_tomatoes(train=2000, valid=0, test=0).train, HeadClassify(("negative", "positive"))


def against_peft(source: str, model: FrozenModel, rounds: int) -> dict[str, Any]:
    """Each case on the same batches of sentences of all lengths."""
    found = {}
    for case in CASES:
        rows, task = data(case.tag)
        batches = [range(begin, begin + BATCH) for begin in range(0, 4 * BATCH, BATCH)]
        ours = Ours(model, case.what, task, rows[: 4 * BATCH])
        theirs = Theirs(source, case, task, rows[: 4 * BATCH])
        times = ratio(lambda o=ours, b=batches: _all(o.step, b), lambda t=theirs, b=batches: _all(t.step, b), rounds)
        found[case.name] = {"times_faster": times, "asked": 1.0, "met": times["median"] >= 1.0}
        print(f"{case.name}: {times['median']:.2f} times PEFT's", flush=True)
    return found


def _all(step: Callable[[Sequence[int]], None], batches: Sequence[Sequence[int]]) -> None:
    for batch in batches:
        step(batch)


@contextmanager
def padded() -> Iterator[None]:
    """Every row of a batch goes through the layers with its pads, as elsewhere."""
    with patch.object(frozen_model, "remove_padding", lambda network, shape, inputs, mask: (inputs, None)):
        yield


def lengths(model: FrozenModel, rounds: int) -> dict[str, Any]:
    """An epoch of P-tuning v2 on 512 film-review sentences: buckets of length, no pads in the layers, and both, against padded batches as they come."""
    rows, task = data(False)
    rows = rows[:512]
    ours = Ours(model, "p-tuning-v2", task, rows)
    sampler = BucketSampler([train_feature.rows[0].num_tokens for train_feature in ours.train_features], BATCH, 0)
    sorted_ = [sampler.batch(step) for step in range(sampler.per_epoch)]
    order = random.Random(0).sample(range(len(rows)), len(rows))
    mixed = [order[begin : begin + BATCH] for begin in range(0, len(order), BATCH)]

    def epoch(batches: Sequence[Sequence[int]], pads: bool) -> None:
        with padded() if pads else nullcontext():
            _all(ours.step, batches)

    found = {}
    for name, batches, pads in (("buckets", sorted_, True), ("no pads", mixed, False), ("both", sorted_, False)):
        times = ratio(lambda b=batches, p=pads: epoch(b, p), lambda: epoch(mixed, True), rounds)
        asked = 1.0 if name == "no pads" else BUCKETS
        found[name] = {"times_faster": times, "asked": asked, "met": times["median"] >= asked}
        print(f"{name}: {times['median']:.2f} times as fast as padded batches as they come", flush=True)
    return found


def memory_of(checkpointing: bool) -> None:
    """In a process of its own: the peak of three steps of P-tuning v2 on Gemma-3-270M, 8 rows of 256 tokens, above the idle model."""
    model = load(folder("gemma"))
    touch(model.network)
    text = " ".join(row["text"] for row in rotten_tomatoes(train=400, valid=0, test=0).train)
    ids = model.tokenizer.encode(text)
    rows = [{"text": model.tokenizer.decode(ids[i * 250 : i * 250 + 250]), "label": ("negative", "positive")[i % 2]} for i in range(8)]
    ours = Ours(model, "p-tuning-v2", HeadClassify(("negative", "positive")), rows)
    idle = resident()
    forget_peak()
    for _ in range(3):
        with model.gradient_checkpointing(checkpointing):
            ours.step(range(8))
    print(json.dumps({"idle": idle, "peak": highest(), "above_idle": highest() - idle}))


def memory() -> dict[str, Any]:
    found = {}
    for name in ("off", "on"):
        done = subprocess.run([sys.executable, __file__, "--memory-of", name], capture_output=True, text=True, check=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "share_above_idle": found["on"]["above_idle"] / found["off"]["above_idle"]}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/nlu_speed.py", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of both sides in turn (default 7)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads (default: all cores)")
    parser.add_argument("--memory-of", choices=("off", "on"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=store.RESULTS / "nlu_speed.json", help="results file")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    disable_progress_bar()
    if args.memory_of:
        memory_of(args.memory_of == "on")
        return
    birth, source = provenance([0], args.threads), folder("minilm")
    model = load(source)
    found: dict[str, Any] = {"against_peft": against_peft(source, model, args.rounds), "lengths": lengths(model, args.rounds)}
    found["gradient_checkpointing"] = memory()
    print(
        f"gradient checkpointing: {found['gradient_checkpointing']['share_above_idle']:.2f} of the memory above the idle model", flush=True
    )
    store.write(args.out, {**found, "provenance": birth})


if __name__ == "__main__":
    main()
