"""Turns off what transformers and the hub print while a command runs."""

from __future__ import annotations

import logging

import huggingface_hub.utils
import transformers


def quiet(*, downloads: bool) -> None:
    """Turn off transformers' progress bars and advice in this process; `downloads` keeps the hub's bars, which appear for downloads only."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    huggingface_hub.utils.logging.set_verbosity_error()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if downloads:
        huggingface_hub.utils.enable_progress_bars()
