"""Answers to a question as data sets write them, checked against the context they were taken from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foreword.errors import DataError
from foreword.tasks.data.list_cells import cell, excerpt, read_json


@dataclass(frozen=True)
class Answer:
    """A text, and where it begins in the context, if the data says so."""

    text: str
    start: int | None = None


def parse_answers(text: str) -> list[Answer]:
    """Answers of a cell: a text, a JSON list of texts, or SQuAD's {"text": [...], "answer_start": [...]} as one object or a list of them.

    None at all (an empty cell or list) means that the question cannot be answered. Raises DataError for anything else.
    """
    if not text.strip():
        return []
    if text.lstrip()[0] not in "[{":
        return [Answer(text.strip())]
    found = read_json(text)
    try:
        return [answer for item in (found if isinstance(found, list) else [found]) for answer in _answers(item)]
    except ValueError:
        raise DataError(
            f'\'answers\' is {excerpt(text)}, which is no JSON list of texts; write ["Paris"], or {{"text": ["Paris"], "answer_start": [17]}}.'
        ) from None


def checked_answers(example: Mapping[str, str]) -> list[tuple[int, int]]:
    """The characters (begin, end) of each answer in the context; raises DataError for one that is not there, or not where it is said to be."""
    question, context = cell(example, "question"), cell(example, "context")
    spans = []
    for answer in parse_answers(cell(example, "answers")):
        begin = context.find(answer.text) if answer.start is None else answer.start
        if answer.text not in context:
            raise DataError(
                f"the answer '{excerpt(answer.text)}' to '{excerpt(question)}' is not in its context; correct it, or leave it empty where there is none."
            )
        if begin < 0 or context[begin : begin + len(answer.text)] != answer.text:
            there = excerpt(context[max(begin, 0) : max(begin, 0) + len(answer.text)])
            raise DataError(
                f"the answer '{excerpt(answer.text)}' to '{excerpt(question)}' is said to begin at {begin}, but '{there}' stands there; correct answer_start or leave it out."
            )
        begin += len(answer.text) - len(answer.text.lstrip())
        spans.append((begin, begin + len(answer.text.strip())))
    return spans


def _answers(item: Any) -> list[Answer]:
    """Answers of one JSON value; raises ValueError for what is none."""
    if isinstance(item, str | int | float) and not isinstance(item, bool):
        texts, starts = [str(item)], [None]
    elif isinstance(item, dict) and "text" in item:
        texts, starts = _listed(item["text"]), _listed(item.get("answer_start", [None] * len(_listed(item["text"]))))
    else:
        raise ValueError
    fine = all(isinstance(text, str) and text.strip() for text in texts) and all(type(start) in (int, type(None)) for start in starts)
    if not fine or len(texts) != len(starts):
        raise ValueError
    return [Answer(text, start) for text, start in zip(texts, starts, strict=True)]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
