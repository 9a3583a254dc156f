"""Tags of words as entities: IOB2, IOBES and BILOU, read and mended with seqeval."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

Scheme = Literal["iob2", "iobes", "bilou"]
Entity = tuple[str, int, int]

_TAG = re.compile(r"[BIESLU](-.+)?")
_LETTERS: dict[Scheme, str] = {"iob2": "BBII", "iobes": "SBIE", "bilou": "UBIL"}  # alone, first, inside, last
_TO_IOBES = {"U": "S", "L": "E"}


def scheme_of(tags: Sequence[str]) -> Scheme | None:
    """How these tags mark entities, None where they are plain (parts of speech): "O" or a letter of a scheme each, one that begins or goes on among them."""
    marked = [tag for tag in tags if tag != "O"]
    if not marked or not all(_TAG.fullmatch(tag) for tag in marked) or not any("-" in tag for tag in marked):
        return None
    letters = {tag[0] for tag in marked}
    return "iobes" if letters & set("ES") else "bilou" if letters & set("LU") else "iob2"


def entities(tags: Sequence[str]) -> list[Entity]:
    """(type, first word, last word) of each entity, as conlleval reads them: one may begin without a B-."""
    from seqeval.metrics.sequence_labeling import get_entities  # pulls in scikit-learn; only tagging needs it

    return get_entities([_TO_IOBES.get(tag[:1], tag[:1]) + tag[1:] if tag != "O" else tag for tag in tags])


def repaired(tags: Sequence[str], scheme: Scheme) -> list[str]:
    """The same entities in well-formed tags: an I- that goes on with nothing becomes a B- (so IOB1 becomes IOB2)."""
    alone, first, inside, last = _LETTERS[scheme]
    mended = ["O"] * len(tags)
    for name, begin, end in entities(tags):
        letters = [alone] if begin == end else [first, *[inside] * (end - begin - 1), last]
        mended[begin : end + 1] = [f"{letter}-{name}" for letter in letters]
    return mended
