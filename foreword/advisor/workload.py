"""The workload of a training step or request. Small, because every command imports it."""

from __future__ import annotations

from dataclasses import dataclass

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
BATCH_SIZE = 16  # as `TrainPlan` has it


@dataclass(frozen=True)
class Load:
    """Rows, tokens of a text, tokens that are predicted, the base's precision, whether layers are computed again, whether attention is fused."""

    batch_size: int = BATCH_SIZE
    text_tokens: int = 128
    answer_tokens: int = 1
    dtype: str = "bfloat16"
    checkpointing: bool = False
    fused: bool = True
