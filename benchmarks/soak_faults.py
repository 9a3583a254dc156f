"""The faults of the soak: bodies, sampling fields and adapter folders that are wrong in ways that once harmed others."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from foreword.adapters.folder import MANIFEST

MALFORMED: tuple[bytes, ...] = (
    b"",
    b"{",
    b"[]",
    b'"\\ud800"',
    b'{"model": 3}',
    b'{"model": "t0", "prompt": "x", "max_tokens": -1}',
    b'{"model": "t0", "prompt": "x", "no_such_field": 1}',
    b'{"model": "../../etc/passwd", "prompt": "x"}',
    b'{"model": "t0", "prompt": "x", "temperature": NaN}',
    b'{"model": "t0", "prompt": "x", "temperature": 1e999}',
    b'{"model": "t0", "prompt": ["x", 3]}',
    b'{"model": "t0", "prompt": "\\ud83d"}',
    b'{"model": "t0\\udfff", "name": "t0\\udfff", "input": "x"}',
    b'{"model": "t0", "prompt": "x", "seed": ' + b"9" * 5000 + b"}",
    b'{"model": "t0", "model": "t1", "prompt": "x"}',
    b"\xff\xfe" * 100,
    b"[" * 5000,
)
MILLION = 1_000_000


def million_items(drawn: random.Random) -> tuple[str, bytes]:
    """A path and a body of a million wrong items, just below the limit of bytes."""
    path, opening, item = drawn.choice(
        (
            ("/v1/completions", b'{"model":"t0","prompt":[', b"1.5,"),
            ("/v1/completions", b'{"model":"t0","prompt":[[', b"1,"),
            ("/v1/chat/completions", b'{"model":"t0","messages":[', b"1,"),
            ("/v1/tag", b'{"model":"t0","input":[', b"[1],"),
            ("/v1/batch", b'{"model":"t0","input":[', b"{},"),
        )
    )
    return path, opening + item * min(MILLION, (4 << 20) // len(item) - 100)


def odd_request(drawn: random.Random, task: str, base: str, text: str) -> dict[str, Any]:
    """A completion whose sampling fields leave no distribution, or whose token ids do not exist: refused or answered, and alone in it."""
    common: dict[str, Any] = {"model": task, "prompt": text, "max_tokens": 4}
    return common | drawn.choice(
        (
            {"temperature": 1e-40},
            {"temperature": 1e-39, "top_p": 1e-30},
            {"temperature": 1.0, "repetition_penalty": 1e-300},
            {"temperature": 1.0, "min_p": 1.0, "top_k": 1},
            {"temperature": 1e300},
            {"temperature": 1.0, "top_p": 1e-12, "logit_bias": {str(token): -100 for token in range(20_000)}},
            {"logit_bias": {"999999999": 1}},
            {"model": base, "prompt": [2, 262_144 * 4]},
            {"model": base, "prompt": [-1]},
            {"model": base, "prompt": [2, 2**62]},
        )
    )


def odd_manifest(drawn: random.Random, manifest: bytes) -> bytes:
    """A manifest that is whole JSON and makes no sense."""
    found = json.loads(manifest)
    field = drawn.choice(sorted(found))
    value = drawn.choice((None, 7, [], {}, [[]], "x", -1, {"kind": ["x"]}, 1e300))
    return json.dumps(drawn.choice(({**found, field: value}, [found], {}, {key: found[key] for key in found if key != field}))).encode()


def make_odd(drawn: random.Random, folder: Path) -> None:
    """Make an adapter folder odd: its manifest, or what stands in the place of a file."""
    path = folder / MANIFEST
    if drawn.random() < 0.8:
        path.write_bytes(odd_manifest(drawn, path.read_bytes()))
    else:
        path.unlink()
        path.mkdir()
