"""Configs of models that everyone knows, as their hubs have them, cut to what decides sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from foreword.advisor.architecture import Architecture, read_architecture

if TYPE_CHECKING:
    from foreword.backbone.frozen_model import FrozenModel

_LLAMA = {"model_type": "llama", "tie_word_embeddings": False}
CONFIGS: dict[str, dict[str, Any]] = {
    "Llama-2-7B": {
        **_LLAMA,
        **{"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 32000},
        "max_position_embeddings": 4096,
    },
    "Llama-3-8B": {
        **_LLAMA,
        **{"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 128256},
        **{"num_key_value_heads": 8, "max_position_embeddings": 8192},
    },
    "Llama-3.2-1B": {
        **{"model_type": "llama", "tie_word_embeddings": True},
        **{"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "vocab_size": 128256},
        **{"num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 131072},
    },
    "Gemma-3-270M": {
        **{"model_type": "gemma3_text", "hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18, "num_attention_heads": 4},
        **{"num_key_value_heads": 1, "head_dim": 256, "vocab_size": 262144, "max_position_embeddings": 32768},
    },
    "GPT-2": {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50257},
    "BERT-base": {
        **{"model_type": "bert", "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
        **{"vocab_size": 30522, "type_vocab_size": 2, "max_position_embeddings": 512},
    },
    "RoBERTa-base": {
        **{"model_type": "roberta", "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
        **{"vocab_size": 50265, "type_vocab_size": 1, "max_position_embeddings": 514, "pad_token_id": 1},
    },
    "T5-small": {
        **{"model_type": "t5", "is_encoder_decoder": True, "d_model": 512, "d_ff": 2048, "d_kv": 64, "num_heads": 8, "num_layers": 6},
        **{"vocab_size": 32128, "relative_attention_num_buckets": 32, "n_positions": 512},
    },
    "BART-base": {
        **{"model_type": "bart", "is_encoder_decoder": True, "d_model": 768, "encoder_layers": 6, "decoder_layers": 6},
        **{"encoder_attention_heads": 12, "decoder_attention_heads": 12, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072},
        **{"vocab_size": 50265, "max_position_embeddings": 1024},
    },
    "Qwen3-30B-A3B": {
        **{
            "model_type": "qwen3_moe",
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "moe_intermediate_size": 768,
            "num_hidden_layers": 48,
        },
        **{"num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8},
        **{"vocab_size": 151936, "max_position_embeddings": 40960, "tie_word_embeddings": False},
    },
}


def base(name: str) -> Architecture:
    """One of these."""
    return read_architecture(CONFIGS[name])


def plain(hidden: int, layers: int, *, heads: int = 32) -> Architecture:
    """A model of full heads, K·D = H."""
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "vocab_size": 32000}
    return read_architecture({**_LLAMA, **sizes, "intermediate_size": 4 * hidden})


def every_tiny() -> Iterator[FrozenModel]:
    """Every tiny model of the tests, of all families."""
    import tiny
    import tiny_encoders
    import tiny_seq2seq

    yield from map(tiny.frozen, tiny.TINY)
    yield from map(tiny_encoders.frozen, tiny_encoders.TINY)
    yield from map(tiny_seq2seq.frozen, tiny_seq2seq.SEQ2SEQ)
