"""Authentication by API keys, of which only hashes are kept, each with its tasks and its rate limit."""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from foreword.errors import UsageError
from foreword.server.http_errors import HTTPError

PREFIX = "fw-"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Caller:
    """The owner of a key. `tasks` None means all tasks; `rate` is answers per minute, None without limit."""

    name: str
    tasks: frozenset[str] | None = None
    rate: int | None = None

    def sees(self, task: str) -> bool:
        """Whether this task exists for the caller."""
        return self.tasks is None or task in self.tasks

    @property
    def line(self) -> str:
        """The options after the hash in a key file."""
        tasks = "" if self.tasks is None else f":tasks={','.join(sorted(self.tasks))}"
        return tasks + ("" if self.rate is None else f":rate={self.rate}")


ANONYMOUS = Caller("")


@dataclass
class TokenBucket:
    """A token bucket of answers, which fills at the caller's rate."""

    left: float
    at: float


@final
class Keys:
    """All keys of a server; without any, no key is needed."""

    def __init__(self, callers: Mapping[str, Caller], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._callers, self._clock = dict(callers), clock
        self._buckets: dict[str, TokenBucket] = {}

    def __len__(self) -> int:
        return len(self._callers)

    def caller(self, authorization: str | None) -> Caller:
        """The owner of the key in an Authorization header; raises HTTPError (401) for an unknown key. Takes the same time for every wrong key."""
        if not self._callers:
            return ANONYMOUS
        scheme, _, key = (authorization or "").partition(" ")
        digest = hash_key(key.strip())
        found = [caller for known, caller in self._callers.items() if hmac.compare_digest(known, digest)]
        if scheme.lower() != "bearer" or not found:
            raise HTTPError(401, "This server needs an API key; send a valid one as `Authorization: Bearer KEY`.")
        return found[0]

    def charge(self, caller: Caller, count: int) -> None:
        """Count answers against a caller's rate; raises HTTPError (429 with the seconds to wait) if they are too many now."""
        if caller.rate is None:
            return
        if count > caller.rate:
            raise HTTPError(
                400, f"The request asks for {count} answers, but this key allows {caller.rate} per minute; ask for fewer at once."
            )
        now, pace = self._clock(), caller.rate / 60
        bucket = self._buckets.setdefault(caller.name, TokenBucket(caller.rate, now))
        bucket.left, bucket.at = min(caller.rate, bucket.left + (now - bucket.at) * pace), now
        if bucket.left < count:
            wait = math.ceil((count - bucket.left) / pace)
            raise HTTPError(429, f"This key allows {caller.rate} answers per minute; try again in {wait} s.", retry_after=wait)
        bucket.left -= count


def hash_key(key: str) -> str:
    """The stored hash of a key. Keys are long and random, so a fast hash is enough."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def make_key(name: str, tasks: Sequence[str] | None = None, rate: int | None = None) -> tuple[str, str]:
    """A new key, and its line for a key file; raises UsageError for a name that is not valid."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"key name {name!r} cannot be used; give at most 64 letters (a to z), digits, '.', '_' or '-'.")
    key = PREFIX + secrets.token_urlsafe(32)
    caller = Caller(name, None if tasks is None else frozenset(tasks), rate)
    return key, f"{name}:{hash_key(key)}{caller.line}"


def read_keys(path: str | Path | None, key: str | None = None, options: Sequence[str] = ()) -> Keys:
    """The keys of a file (`NAME:SHA256[:tasks=A,B][:rate=N]` a line, # begins a comment), one from the environment, and those of `--api-key`.

    The last two have all rights. Raises UsageError that names the line at fault, and never shows a key.
    """
    callers = {} if not key else {hash_key(key): Caller("environment")}
    for number, given in enumerate(options, 1):
        if not given.strip() or not given.isascii() or not given.isprintable():
            raise UsageError("--api-key is not a key; give printable ASCII characters, such as a key that `foreword make-key` made.")
        callers.setdefault(hash_key(given.strip()), Caller(f"api-key-{number}"))
    if path is None:
        return Keys(callers)
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the keys in '{path}' cannot be read ({error}); give a file that `foreword make-key` wrote.") from error
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            digest, caller = _entry(line.strip(), f"line {number} of '{path}'")
            if digest in callers or caller.name in {known.name for known in callers.values()}:
                raise UsageError(f"line {number} of '{path}' repeats the key '{caller.name}'; keep one of them.")
            callers[digest] = caller
    if not callers:
        raise UsageError(f"'{path}' holds no key; make one with `foreword make-key NAME >> {path}`.")
    return Keys(callers)


def writable_by_others(path: str | Path) -> bool:
    """Whether another user of this machine can change a file, and so give themselves a key."""
    return os.name == "posix" and bool(os.stat(path).st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _entry(line: str, where: str) -> tuple[str, Caller]:
    """One line of a file of keys."""
    name, _, rest = line.partition(":")
    digest, *options = rest.split(":")
    if not _NAME.fullmatch(name) or not _HASH.fullmatch(digest):
        raise UsageError(f"{where} is not a key; write NAME:SHA256[:tasks=A,B][:rate=N], as `foreword make-key` does.")
    tasks: frozenset[str] | None = None
    rate: int | None = None
    for option in options:
        word, _, value = option.partition("=")
        if word == "tasks" and value:
            tasks = frozenset(value.split(","))
        elif word == "rate" and value.isdecimal() and int(value) > 0:
            rate = int(value)
        else:
            raise UsageError(f"{where} has the unknown option '{option}'; write tasks=A,B or rate=N with N answers per minute.")
    return digest, Caller(name, tasks, rate)
