"""Fixtures every test may use. Models are tiny, random and made on the spot (`tests/tiny.py`); nothing here needs a network."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

# Before any test imports transformers: no test may reach for a network, and threads of the tokenizer gain nothing here.
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

# A shell that runs the tests in the background lets them, and so the commands they start, ignore Ctrl-C; a user's shell does not.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from foreword.backbone.frozen_model import FrozenModel


@pytest.fixture(scope="session")
def frozen() -> Callable[[str], FrozenModel]:
    """A frozen tiny model by name (`tiny.TINY`), shared by all tests: read it, never change it."""
    import tiny  # imports torch and transformers, which tests of the bottom floor do without

    return tiny.frozen


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """The tiny tokenizer: `tiny_tokenizer(bos=True, chat=False)`."""
    import tiny

    return tiny.tokenizer
