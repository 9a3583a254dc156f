"""What is known of a base model without its weights: the same from a loaded model and from its folder."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import tiny_encoders
import tiny_seq2seq
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from foreword.backbone.loading.load_info import load_info
from foreword.backbone.loading.load_model import load, wrap
from foreword.backbone.model_info import ModelInfo
from foreword.errors import ModelError

MODELS: dict[str, Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]] = {
    "llama": lambda: (tiny.network("llama"), tiny.tokenizer(chat=True)),
    "gpt2-tied": lambda: (tiny.network("gpt2", tie_word_embeddings=True), tiny.tokenizer()),
    "qwen3_moe": lambda: (tiny.network("qwen3_moe"), tiny.tokenizer()),
    "bert": lambda: (tiny_encoders.network("bert"), tiny_encoders.tokenizer("bert")),
    "t5": lambda: (tiny_seq2seq.network("t5"), tiny_seq2seq.tokenizer("t5")),
    "bart": lambda: (tiny_seq2seq.network("bart"), tiny_seq2seq.tokenizer("bart")),
}


def saved(folder: Path, name: str, dtype: torch.dtype = torch.float32) -> Path:
    network, tokenizer = MODELS[name]()
    network.to(dtype).save_pretrained(folder)  # type: ignore[arg-type]  # `to` is typed as any module
    tokenizer.save_pretrained(folder)
    return folder


def said(info: ModelInfo) -> dict[str, object]:
    """Everything that an info says, its tokenizer by what it does."""
    opening = info.answer_opening if info.shape.kind == "encoder-decoder" else info.decoder_opening
    return {
        "name": info.name,
        "shape": info.shape,
        "quantization": info.quantization,
        "fingerprint": info.fingerprint,
        "tokenizer": (info.tokenizer_fingerprint, info.tokenizer.opening, info.tokenizer.closing, info.tokenizer.encode("a joy")),
        "chat": info.tokenizer.inner.chat_template,
        "opening": opening,
        "frequent": info.frequent_tokens(20),
    }


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_says_what_the_loaded_model_says(name: str, tmp_path: Path) -> None:
    model = load(saved(tmp_path, name))
    assert said(load_info(tmp_path)) == said(model.info)
    assert model.fingerprint == wrap(*MODELS[name]()).fingerprint, "and it is that of the same weights in memory"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_give_the_fingerprint_of_the_model_read_in_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = saved(tmp_path, "llama", dtype)
    model = load(folder, dtype="float32")
    assert model.dtype == torch.float32
    assert load_info(folder).fingerprint == model.fingerprint == load(folder).fingerprint


@pytest.mark.parametrize("quantize", ["nf4", "int8"])
def test_a_quantised_base_has_its_own_fingerprint(quantize: str, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    info = load_info(saved(tmp_path, "llama"), quantize=quantize)
    assert said(info) == said(load(tmp_path, quantize=quantize).info)
    assert info.fingerprint.endswith(f"-{quantize}") and info.fingerprint != load_info(tmp_path).fingerprint


def test_weights_are_needed_for_the_fingerprint_alone(tmp_path: Path) -> None:
    folder = saved(tmp_path, "llama")
    known = load(folder).info
    (folder / "model.safetensors").unlink()
    info = load_info(folder)
    assert (info.shape, info.tokenizer_fingerprint) == (known.shape, known.tokenizer_fingerprint)
    with pytest.raises(ModelError) as caught:
        info.fingerprint  # noqa: B018  (it is read now)
    assert str(caught.value).startswith(f"model '{folder}' cannot be loaded (") and "check that the folder is complete" in str(caught.value)
    assert load_info(folder, fingerprint=known.fingerprint).fingerprint == known.fingerprint


def test_rules_of_generation_in_the_config_alone_are_read(tmp_path: Path) -> None:
    folder = saved(tmp_path, "bart")
    rules = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "decoder_start_token_id": 1, "forced_bos_token_id": rules["forced_bos_token_id"]})
    )
    opening = load(folder).answer_opening
    assert load_info(folder).answer_opening == opening == (1, rules["forced_bos_token_id"])


def test_views_of_a_base_share_its_info() -> None:
    model = tiny.build("llama")
    view = model.over(copy.deepcopy(model.network))
    with torch.no_grad():
        next(view.network.parameters()).zero_()
    assert view.info is model.info and view.fingerprint == tiny.frozen("llama").fingerprint


def test_a_model_without_a_tokenizer(tmp_path: Path) -> None:
    tiny.network("llama").save_pretrained(tmp_path)
    with pytest.raises(ModelError) as caught:
        load_info(tmp_path)
    assert str(caught.value).startswith(f"model '{tmp_path}' cannot be loaded (")


def test_how_weights_are_stored_is_read_from_the_config(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny.network("llama").save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    plain = json.loads((folder / "config.json").read_text("utf-8"))
    for stored, name in (
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "fp4"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "nf4"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        (None, None),
    ):
        (folder / "config.json").write_text(json.dumps({**plain, **({"quantization_config": stored} if stored else {})}), "utf-8")
        assert load_info(folder).quantization == name
    with pytest.raises(ModelError, match="quantize 'zz' is not known; choose nf4 or int8."):
        load_info(folder, quantize="zz")
