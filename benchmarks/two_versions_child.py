"""One side of `two_versions.py`: work on whichever checkout of Foreword stands first on the path, through public names only.

Each round is asked for by a line on standard input and answered by a line with its seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

import models

import foreword as fw

STEPS, WORDS = 4, 60  # steps a round; words of a text


def examples(count: int) -> list[dict[str, str]]:
    """Texts of like length with a label, the same on both sides."""
    return [
        {"text": " ".join(f"w{3 + (7 * i + j) % 1900}" for j in range(WORDS + i % 9)), "label": ("w3", "w4")[i % 2]} for i in range(count)
    ]


def model(source: str) -> fw.FrozenModel:
    if source == models.SMALL:
        return fw.wrap(models.network(source).float(), models.tokenizer(source), name=source)
    return fw.load(source, dtype="float32")


def train(source: str, task: str, method: str) -> Iterator[None]:
    """Training steps of `fit` itself; it stops between two of them until the next round is asked for."""
    kinds = {"classify": fw.Classify(("w3", "w4")), "classify-head": fw.HeadClassify(("w3", "w4"))}
    rounds = _Rounds()

    def listener(event: dict[str, object]) -> None:
        if event["event"] == "step" and int(str(event["step"])) % STEPS == 0:
            rounds.next()

    plan = fw.TrainPlan(steps=1_000_000, batch_size=8, eval_every=1_000_000, checkpoint_every=1_000_000, tracker="none")
    data = examples(64)
    fw.fit(model(source), fw.named(method), kinds[task], data, data[:8], plan, listener=listener)
    yield


def read(source: str, task: str, method: str) -> Iterator[None]:
    """Predictions of 64 texts by an adapter of one training step."""
    kinds = {"classify": fw.Classify(("w3", "w4")), "classify-head": fw.HeadClassify(("w3", "w4"))}
    data, base = examples(64), model(source)
    adapter = fw.fit(base, fw.named(method), kinds[task], data, data[:8], fw.TrainPlan(steps=1, tracker="none")).adapter
    reader = fw.Reader.of(base, adapter)
    while True:
        reader.predict(data)
        yield


class _Rounds:
    """Answers each line on standard input with the seconds since the line before was read."""

    def __init__(self) -> None:
        self.begin: float | None = None

    def next(self) -> None:
        print(0.0 if self.begin is None else time.perf_counter() - self.begin, flush=True)
        if not sys.stdin.readline():
            sys.exit(0)
        self.begin = time.perf_counter()


WORK: dict[str, Callable[[str, str, str], Iterator[None]]] = {"train": train, "predict": read}


def main() -> None:
    what, source, task, method = sys.argv[1:]
    rounds = _Rounds()
    for _ in WORK[what](source, task, method):
        rounds.next()


if __name__ == "__main__":
    main()
