"""Which checkpoint and which tokenizer this is, in sixteen characters each: an adapter is bound to both."""

from __future__ import annotations

import hashlib
import json

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from foreword.backbone.quantization import quantization_of
from foreword.shape import ModelShape

_SAMPLES = 64


def fingerprint_model(network: PreTrainedModel, shape: ModelShape) -> str:
    """Hash of the shape and of 64 evenly spaced numbers of every parameter, in bf16 so that the precision of loading does not matter.

    An encoder's pooler does not count: no task reads it, and checkpoints of one encoder have it or not.
    A quantised model ends with how it is quantised ("…-nf4"): its numbers are others, and what was trained on them belongs to them.
    """
    digest = hashlib.sha256(shape.digest().encode())
    for name, parameter in sorted(network.named_parameters()):
        if shape.kind == "encoder" and name.startswith("pooler."):
            continue
        flat = parameter.detach().reshape(-1)
        count = min(_SAMPLES, len(flat))
        index = torch.arange(count, device=flat.device) * (len(flat) - 1) // max(count - 1, 1)
        sample = flat[index].to("cpu", torch.bfloat16).view(torch.int16)
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    quantization = quantization_of(network)
    return digest.hexdigest()[:16] + (f"-{quantization}" if quantization else "")


def quantization_in(fingerprint: str) -> str | None:
    """How a model with this fingerprint is quantised."""
    return fingerprint.partition("-")[2] or None


def fingerprint_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of the vocabulary, the special tokens and how a probe text is cut."""
    probe = "Soft prompts: naïve café, 12,345 — 東京\n\tdef f(x): return x  # ok"
    known = {"size": len(tokenizer), "special": sorted(map(str, tokenizer.all_special_tokens)), "probe": tokenizer(probe)["input_ids"]}
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
    for token, index in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        digest.update(f"{index}\t{token}\n".encode(errors="surrogatepass"))
    return digest.hexdigest()[:16]
