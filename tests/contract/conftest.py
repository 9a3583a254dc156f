"""Where the laws run: on the CPU, and on a GPU too where there is one (`scripts/test -m gpu`).

`FOREWORD_LAWS_ON=pretended` runs them on the pretended GPU instead, on any machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache, partial

import pytest
import tiny
import tiny_encoders
import tiny_seq2seq
import torch
from contract.devices import entered, on

_PLACES = [os.environ["FOREWORD_LAWS_ON"]] if "FOREWORD_LAWS_ON" in os.environ else ["cuda"] if torch.cuda.is_available() else []


def _moved(kind: str) -> Iterator[None]:
    """The shared tiny models are on this device."""
    for device in entered(kind):
        with pytest.MonkeyPatch.context() as patch:
            for module in (tiny, tiny_encoders, tiny_seq2seq):
                patch.setattr(module, "frozen", cache(partial(on, device=device)))
            yield


if _PLACES:

    @pytest.fixture(autouse=True, scope="module", params=["cpu", *(pytest.param(place, marks=pytest.mark.gpu) for place in _PLACES)])
    def laws_device(request: pytest.FixtureRequest) -> Iterator[None]:
        if request.param == "cpu" or request.path.stem.startswith("test_devices"):  # these choose their own
            yield
        else:
            yield from _moved(request.param)
