"""A Gemma 3 checkpoint in llama.cpp's GGUF format, written out as a folder that every loader reads."""

from __future__ import annotations

import contextlib
import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers

from foreword.errors import ModelError

# llama.cpp's token types (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): 3 control, 4 user-defined.
CONTROL, USER_DEFINED = 3, 4
# The special tokens, and what GGUF calls them.
SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


def convert_gguf(source: Path, target: Path) -> None:
    """Dequantise the GGUF file `source` into bf16 safetensors, config and tokenizer in the folder `target`. No network.

    The weights are read by transformers. The tokenizer is built here: transformers 5.16 makes a unigram model without BOS
    from a Gemma file, which silently tokenises text differently than in the model's training.

    Raises ModelError for a file that is no GGUF or no Gemma 3, and for a missing `gguf` package.
    """
    metadata = _read(source)
    # The converter shows its own progress bar, whatever the settings of transformers.
    with contextlib.redirect_stderr(io.StringIO()):
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, dtype=torch.bfloat16, **_dequantise()
        )
        model.save_pretrained(target)
    _gemma_tokenizer(metadata, source).save_pretrained(target)


def _dequantise() -> dict[str, Any]:
    """Newer releases keep GGUF blocks quantised by default; older ones always dequantise and do not have this class."""
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def _read(source: Path) -> dict[str, Any]:
    """The tokenizer's metadata of a Gemma 3 file, under the names after `tokenizer.ggml.`."""
    if find_spec("gguf") is None:
        raise ModelError(f"reading '{source.name}' needs the package 'gguf', which is not installed; run: pip install \"foreword[demo]\".")
    if not _is_gguf(source):
        raise ModelError(f"'{source}' is not a GGUF file; give one that starts with the bytes 'GGUF'.")
    from gguf import GGUFReader

    fields = GGUFReader(source).fields
    architecture = fields["general.architecture"].contents()
    if architecture != "gemma3":
        raise ModelError(
            f"'{source.name}' holds a '{architecture}' model, but only 'gemma3' is converted; load a safetensors checkpoint instead."
        )
    start = "tokenizer.ggml."
    return {name.removeprefix(start): field.contents() for name, field in fields.items() if name.startswith(start)}


def _is_gguf(source: Path) -> bool:
    if not source.is_file():
        return False
    with source.open("rb") as file:
        return file.read(4) == b"GGUF"


def _gemma_tokenizer(metadata: dict[str, Any], source: Path) -> transformers.GemmaTokenizer:
    """Byte-pair encoding with byte fallback, BOS in front, padded on the left."""
    # The file has runs of spaces as spaces; the tokenizer looks them up after replacing each by U+2581.
    tokens = ["\u2581" * len(token) if token and not token.strip(" ") else token for token in metadata["tokens"]]
    options: dict[str, Any] = {f"{name}_token": tokens[metadata[f"{key}_token_id"]] for name, key in SPECIAL.items()}
    options |= {"vocab": {token: i for i, token in enumerate(tokens)}, "merges": _merges(tokens)}
    tokenizer = transformers.GemmaTokenizer(add_bos_token=True, padding_side="left", **options)
    kinds = list(zip(tokens, metadata["token_type"], strict=True))
    for kind in (CONTROL, USER_DEFINED):
        whole = [transformers.AddedToken(t, normalized=False, special=kind == CONTROL) for t, k in kinds if k == kind]
        tokenizer.add_tokens(whole, special_tokens=kind == CONTROL)
    bos = metadata["bos_token_id"]
    if tokenizer("").input_ids != [bos]:
        raise ModelError(
            f"transformers {transformers.__version__} puts {tokenizer('').input_ids} before a text where '{source.name}' "
            f"asks for BOS ({bos}); install transformers 5.16 to 5.23."
        )
    return tokenizer


def _merges(tokens: list[str]) -> list[tuple[str, str]]:
    """The merge table, which GGUF does not have: every way to split a token into two, by the token's index in the file, longest left part first.

    The scores in the file do not follow Gemma's merge order; the indices do.
    """
    known = set(tokens)
    return [
        (token[:cut], token[cut:])
        for token in tokens
        for cut in range(len(token) - 1, 0, -1)
        if token[:cut] in known and token[cut:] in known
    ]
