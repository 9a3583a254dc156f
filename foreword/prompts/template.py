"""Templates: words, fields and soft tokens in any order. Parsed by hand, never evaluated.

    {soft} or {soft:3}   virtual tokens (a bare {soft} takes those that are left)
    {bos}                the beginning-of-sequence token (put first when a template does not place it)
    {text}, {premise}…   a field of the example;  {{ and }} are literal braces
    {answer}             the answer of the model; always last

Words and fields between two markers are tokenised as one string, so a field meets its neighbours as in plain text.
Fields can never become special tokens; words can (a chat template needs them).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from foreword.errors import DataError, TemplateError

ANSWER = "answer"
_MARKER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@runtime_checkable
class Tokenizer(Protocol):
    """What a template needs of a tokenizer."""

    @property
    def bos(self) -> int | None: ...
    @property
    def eos(self) -> int | None: ...
    @property
    def closing(self) -> tuple[int, ...]: ...
    def encode(self, text: str) -> list[int]: ...
    def split_specials(self, words: str) -> list[str | int]: ...
    def cut(self, text: str, num_tokens: int) -> str: ...


@dataclass(frozen=True)
class Words:
    text: str


@dataclass(frozen=True)
class Field:
    name: str


@dataclass(frozen=True)
class Soft:
    count: int | None


@dataclass(frozen=True)
class Bos:
    pass


Part = Words | Field | Soft | Bos


@dataclass(frozen=True)
class Row:
    """One sequence. `at[j]` is the index of the text token after soft token j (0…T, ascending).

    `labels` are the tokens to be predicted at their own position, -100 elsewhere; `weights` scale their loss. `types` are token types
    (1 on a second text); none means all 0.
    """

    ids: tuple[int, ...]
    at: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    types: tuple[int, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Text tokens and soft tokens together."""
        return len(self.ids) + len(self.at)


@dataclass(frozen=True)
class Template:
    """A parsed template; `bos` False leaves the beginning-of-sequence token out altogether."""

    source: str
    parts: tuple[Part, ...]
    space: str
    bos: bool = True

    @classmethod
    def parse(cls, source: str, *, bos: bool = True) -> Template:
        """Read a template; raises TemplateError that names the wrong marker."""
        parts = list(_scan(source))
        fields = [i for i, part in enumerate(parts) if part == Field(ANSWER)]
        if fields != [len(parts) - 1]:
            raise TemplateError(
                f"template '{source}' has {{answer}} {len(fields)} times or not last, but it must end with one {{answer}}; move it."
            )
        parts.pop()
        space = ""
        if parts and isinstance(parts[-1], Words):
            stripped = parts[-1].text.rstrip(" ")
            space = parts[-1].text[len(stripped) :]
            parts[-1:] = [Words(stripped)] if stripped else []
        if sum(part == Soft(None) for part in parts) > 1 or sum(part == Bos() for part in parts) > 1:
            raise TemplateError(
                f"template '{source}' has more than one bare {{soft}} or {{bos}}; give numbers as in {{soft:3}}, and one {{bos}} at most."
            )
        if bos and Bos() not in parts:
            parts.insert(0, Bos())
        return cls(source, tuple(parts), space, bos)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields an example must have, in order, each once."""
        return tuple(dict.fromkeys(part.name for part in self.parts if isinstance(part, Field)))

    @property
    def has_soft(self) -> bool:
        return any(isinstance(part, Soft) for part in self.parts)

    @property
    def leading(self) -> bool:
        """Whether all soft tokens come before the first field, so that the prompt does not depend on the example."""
        first = next((i for i, part in enumerate(self.parts) if isinstance(part, Field)), len(self.parts))
        return not any(isinstance(part, Soft) for part in self.parts[first:])

    def soft_counts(self, length: int) -> list[int]:
        """How many of `length` soft tokens each {soft} takes; raises TemplateError when they do not add up."""
        counts = [part.count for part in self.parts if isinstance(part, Soft)]
        rest = length - sum(count or 0 for count in counts)
        if (None in counts and rest < 1) or (None not in counts and rest != 0):
            places = f"at least {length - rest + 1}" if None in counts else f"{length - rest}"
            raise TemplateError(
                f"template '{self.source}' places {places} soft tokens, but the prompt has {length}; make them agree or use a bare {{soft}}."
            )
        return [rest if count is None else count for count in counts]

    def render(self, values: Mapping[str, str], tokenizer: Tokenizer, length: int, answer: Sequence[int] = ()) -> Row:
        """Fill the template: text tokens, the positions of `length` soft tokens (0 where the prompt is at the kv site), then the answer with its labels."""
        counts = iter(self.soft_counts(length) if length or self.has_soft else [])
        ids: list[int] = []
        at: list[int] = []
        run: list[str] = []

        def flush() -> None:
            if text := "".join(run):
                ids.extend(tokenizer.encode(text))
            run.clear()

        for part in self.parts:
            if isinstance(part, Field):
                run.append(self._value(values, part.name))
            elif isinstance(part, Words):
                for piece in tokenizer.split_specials(part.text):
                    if isinstance(piece, str):
                        run.append(piece)
                    else:
                        flush()
                        ids.append(piece)
            else:
                flush()
                if isinstance(part, Soft):
                    at.extend([len(ids)] * next(counts))
                elif tokenizer.bos is not None:
                    ids.append(tokenizer.bos)
        flush()
        ids.extend(tokenizer.closing)
        labels = (-100,) * len(ids) + tuple(answer)
        return Row((*ids, *answer), tuple(at), labels, tuple(float(label >= 0) for label in labels))

    def _value(self, values: Mapping[str, str], name: str) -> str:
        if name not in values:
            raise DataError(
                f"the template needs the column '{name}', but the example has {', '.join(values) or 'none'}; rename a column or change the template."
            )
        return values[name]

    def fit(self, values: Mapping[str, str], tokenizer: Tokenizer, length: int, answer: Sequence[int], budget: int) -> tuple[Row, bool]:
        """Render within `budget` tokens (soft ones included), cutting the longest field at its end; says whether it had to cut."""
        row, cut = self.render(values, tokenizer, length, answer), False
        values = dict(values)
        while row.num_tokens > budget:
            name = max(self.fields, key=lambda field: len(values[field]), default=None)
            have = len(tokenizer.encode(values[name])) if name else 0
            keep = have - (row.num_tokens - budget)
            if name is None or keep < 1:
                raise DataError(
                    f"an example needs {row.num_tokens} tokens with its template and answer, but {budget} fit; shorten the template, the prompt or the answer."
                )
            values[name], cut = tokenizer.cut(values[name], keep), True
            row = self.render(values, tokenizer, length, answer)
        return row, cut


def _scan(source: str) -> list[Part]:
    """Split a template into parts; adjacent words are joined."""
    parts: list[Part] = []
    end = 0

    def words(text: str) -> None:
        if text and parts and isinstance(parts[-1], Words):
            parts[-1] = Words(parts[-1].text + text)
        elif text:
            parts.append(Words(text))

    for match in _MARKER.finditer(source):
        words(source[end : match.start()])
        end = match.end()
        if match.group() in ("{{", "}}"):
            words(match.group()[0])
        elif len(match.group()) == 1:
            raise TemplateError(f"template '{source}' has a lone '{match.group()}'; write it twice for a literal brace.")
        else:
            parts.append(_marker(match.group(1), source))
    words(source[end:])
    return parts


def _marker(name: str, source: str) -> Part:
    if name == "bos":
        return Bos()
    if name == "soft":
        return Soft(None)
    if name.startswith("soft:"):
        if not name[5:].isdecimal() or int(name[5:]) < 1:
            raise TemplateError(
                f"template '{source}' has '{{{name}}}', but soft: must be followed by a whole number of at least 1, as in {{soft:3}}."
            )
        return Soft(int(name[5:]))
    if not _NAME.fullmatch(name):
        raise TemplateError(
            f"template '{source}' has '{{{name}}}', which is not a field; use a column name, {{soft:N}}, {{bos}} or {{answer}}."
        )
    return Field(name)
