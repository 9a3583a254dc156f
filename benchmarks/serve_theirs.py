"""What users have today: PEFT with the adapter of each request made active in turn, and transformers' own generation on a whole batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import models
import torch
from peft import PeftConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from serve_work import Ask, Result, written
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase


def _many(base: Any, config: PeftConfig, count: int) -> PeftModel:
    """One PEFT model with so many adapters of one kind, t0, t1, …"""
    model = get_peft_model(base, config, adapter_name="t0").eval()
    for number in range(1, count):
        model.add_adapter(f"t{number}", config)
    return model


class PeftSwitching:
    """A prefix for each task in one PEFT model; a request makes its own active and is answered alone."""

    def __init__(self, source: str, count: int, *, length: int = 20) -> None:
        self.tokenizer = models.tokenizer(source)
        self.model = _many(models.network(source), PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=length), count)

    @torch.inference_mode()
    def run(self, asks: Sequence[Ask]) -> Result:
        result, begun = Result(), time.perf_counter()
        for ask in asks:
            self.model.set_adapter(str(ask.task))
            given = self.tokenizer(written(ask.text), return_tensors="pt")
            found = self.model.generate(**given, max_new_tokens=ask.tokens, min_new_tokens=ask.tokens, do_sample=False)
            result.tokens += found.shape[1] - given["input_ids"].shape[1]
            result.answers += 1
        result.seconds = time.perf_counter() - begun
        return result


class Batches:
    """transformers' `generate` on whatever has come since the last batch, up to so many; all wait for the longest answer among them."""

    def __init__(self, network: Any, tokenizer: PreTrainedTokenizerBase, size: int = 32) -> None:
        self.network, self.tokenizer, self.size = network, tokenizer, size
        tokenizer.padding_side = "left"

    @torch.inference_mode()
    def run(self, asks: Sequence[Ask]) -> Result:
        result, begun, waiting = Result(), time.perf_counter(), sorted(asks, key=lambda ask: ask.at)
        while waiting:
            now = time.perf_counter() - begun
            batch = [ask for ask in waiting if ask.at <= now][: self.size]
            if not batch:
                time.sleep(waiting[0].at - now)
                continue
            waiting = waiting[len(batch) :]
            given = self.tokenizer([written(ask.text) for ask in batch], return_tensors="pt", padding=True)
            longest = max(ask.tokens for ask in batch)
            self.network.generate(**given, max_new_tokens=longest, min_new_tokens=longest, do_sample=False)
            result.tokens += sum(ask.tokens for ask in batch)
            result.answers += len(batch)
        result.seconds = time.perf_counter() - begun
        return result


class PeftClassifiers:
    """A prompt and a head for each task in one PEFT model on an encoder; a request makes its own active."""

    def __init__(self, folder: str, tokenizer: PreTrainedTokenizerBase, count: int, *, length: int = 20) -> None:
        self.tokenizer = tokenizer
        base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, dtype=torch.bfloat16)
        self.model = _many(base, PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=length), count)

    @torch.inference_mode()
    def run(self, asks: Sequence[Ask]) -> Result:
        result, begun = Result(), time.perf_counter()
        for ask in asks:
            self.model.set_adapter(str(ask.task))
            self.model(**self.tokenizer(ask.text, return_tensors="pt"))
            result.answers += 1
        result.seconds = time.perf_counter() - begun
        return result
