"""The JSON of a request body, read strictly and within limits: counted before anything is made of it, and free of what is no text or no number."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from foreword.server.admission import Limits
from foreword.server.http_errors import HTTPError, shorten

MAX_DEPTH = 64
MAX_FIELDS = 64  # of a request itself; the documented ones are fewer
_BOM = b"\xef\xbb\xbf"
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)  # never read twice, so that no body takes more than linear time
_SURROGATE = re.compile("[\ud800-\udfff]")
_INTEGERS = range(-(2**63), 2**63)


def read_json(body: bytes, limits: Limits) -> Any:
    """The value of a body. Raises HTTPError for one that is not JSON in UTF-8, has too many values, gives a field twice, or holds NaN."""
    if body.startswith(_BOM):
        raise HTTPError(400, "The body begins with a byte order mark; send JSON in UTF-8 without one.")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise HTTPError(400, "The body is not JSON in UTF-8; send a JSON object.") from None
    count = _count(body, limits.values)
    if count > limits.values:
        raise HTTPError(413, f"The body has {count} values, but at most {limits.values} are allowed; send fewer at once.")
    try:
        found = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise HTTPError(400, f"The body is not valid JSON ({error.msg}); send a JSON object.") from None
    except RecursionError:
        raise _too_deep("The body") from None
    except ValueError:  # Python reads no number of thousands of digits
        raise _too_large("The body") from None
    if isinstance(found, dict) and len(found) > MAX_FIELDS:
        raise HTTPError(400, f"The body has {len(found)} fields, but no request has more than {MAX_FIELDS}; see /docs.")
    return found


def check_values(value: Any, name: str) -> None:
    """Raise HTTPError, which names the field, for what JSON can say and this server cannot use: half characters, giant numbers, deep nesting."""
    where = f"`{shorten(name)}`"
    left: list[tuple[Any, int]] = [(name, 1), (value, 1)]
    while left:
        found, depth = left.pop()
        if isinstance(found, str):
            if not found.isascii() and _SURROGATE.search(found):
                raise HTTPError(
                    400, f"{where} holds half of a surrogate pair, which is no character; send whole characters.", param=shorten(name)
                )
        elif isinstance(found, list | dict):
            if depth > MAX_DEPTH:
                raise _too_deep(where, shorten(name))
            inner: Sequence[Any] = found if isinstance(found, list) else [*found, *found.values()]
            left.extend((each, depth + 1) for each in inner)
        elif isinstance(found, int | float) and (not math.isfinite(found) if isinstance(found, float) else found not in _INTEGERS):
            raise _too_large(where, shorten(name))


def _count(body: bytes, enough: int) -> int:
    """How many values a body has, the values within others included; an upper bound where that is enough."""
    if (bound := _separators(body)) <= enough:
        return bound
    return _separators(_STRING.sub(b"", body))


def _separators(body: bytes) -> int:
    return 1 + body.count(b",") + body.count(b"[") + body.count(b"{")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = shorten(next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1))
        raise HTTPError(400, f"The body gives `{twice}` twice in one object; give it once.", param=twice)
    return found


def _no_constant(name: str) -> Any:
    raise HTTPError(400, f"The body holds {name}, which is not JSON; send a number.")


def _too_deep(where: str, param: str | None = None) -> HTTPError:
    return HTTPError(400, f"{where} is nested more than {MAX_DEPTH} levels deep; send a flatter value.", param=param)


def _too_large(where: str, param: str | None = None) -> HTTPError:
    return HTTPError(400, f"{where} holds a number that is too large; send one that fits in 64 bits.", param=param)
