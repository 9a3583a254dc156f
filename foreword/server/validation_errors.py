"""Validation errors of a body as one sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from foreword.server.http_errors import HTTPError, shorten
from foreword.server.unsupported_fields import ALL_UNSUPPORTED

SHOWN = 60


def error_of_body(errors: Sequence[Mapping[str, Any]]) -> HTTPError:
    """The first thing that is wrong with a body, from what pydantic found."""
    first = errors[0]
    place = [part for part in first["loc"] if part != "body"]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", "it ends early")
        return HTTPError(400, f"The body is not valid JSON ({reason}); send a JSON object.")
    if not place:
        return HTTPError(400, "The body is not a JSON object; send one, with the header `Content-Type: application/json`.")
    field = str(place[0])
    if first["type"] == "missing":
        return HTTPError(400, f"`{_path(place)}` is missing; give it.", param=field)
    if first["type"] == "extra_forbidden":
        why = "is not supported" if place[-1] in ALL_UNSUPPORTED else "is not a field of this request"
        return HTTPError(400, f"`{_path(place)}` {why}; leave it out, or see /docs.", param=shorten(field, SHOWN))
    about = [
        error
        for error in errors
        if error["loc"][: len(first["loc"]) - len(place) + 1] == (*first["loc"][: len(first["loc"]) - len(place)], place[0])
    ]
    wanted = dict.fromkeys(_wanted(error) for error in about)
    depth = min(len(error["loc"]) for error in about)
    same = place if len(about) == 1 else place[:1]
    came = _shown(first.get("input")) if len(about) == 1 or depth == len(first["loc"]) else ""
    return HTTPError(400, f"`{_path(same)}` should be {' or '.join(wanted)}{came}; correct it, or see /docs.", param=field)


def _wanted(error: Mapping[str, Any]) -> str:
    """What pydantic expected, without its opening words."""
    if error["type"] == "model_type":
        return "an object"  # pydantic names the class
    if error["type"] == "too_short":
        return f"a list with at least {error['ctx']['min_length']} item"
    text = str(error["msg"])
    for opening in ("Input should be ", "Value error, ", "String should have ", "List should have "):
        if text.startswith(opening):
            return ("" if opening.startswith(("Input", "Value")) else "something with ") + text.removeprefix(opening)
    return text[:1].lower() + text[1:]


def _path(place: Sequence[Any]) -> str:
    """`messages[0].role`; pydantic's names of union members are left out."""
    path = ""
    for part in place:
        if isinstance(part, int):
            path += f"[{part}]"
        elif (part.isidentifier() and not part[:1].isupper()) or not path:  # a name with a capital is that of a class
            path += f".{shorten(part, SHOWN)}" if path else shorten(part, SHOWN)
    return path


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return ""
    return f", but {shorten(text, SHOWN)} came"
