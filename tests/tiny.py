"""Tiny random models, one or more for each supported family, and a tokenizer made in code. Nothing is downloaded, seeds fix all numbers."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.loading.load_model import wrap

WINDOW = 6  # of the models that slide: shorter than every text of the contract tests
SPECIALS = ("<pad>", "<bos>", "<eos>", "<user>", "<model>")
PAD, BOS, EOS = 0, 1, 2
CHAT = "<bos>{% for message in messages %}<user>{{ message['content'] }}<eos>\n{% endfor %}{% if add_generation_prompt %}<model>{% endif %}"
CORPUS = (
    "a joy to watch and a dull mess of a film that goes on and on",
    "Is this review positive or negative? It was great, it was terrible.",
    "The capital of France is Paris. The answer: yes or no, maybe good, bad.",
)

# Untied, because random tied embeddings make a model repeat its last token.
_VOCABULARY = {"vocab_size": 320, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS, "tie_word_embeddings": False}
_BASE = {
    **_VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}
_GROUPED = {**_BASE, "num_key_value_heads": 2}
_GPT = {**_VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "initializer_range": 0.2}
_MIXED = {"num_hidden_layers": 3, "sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
_CAPPED = {"query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 4.0}
_MULTIPLIED = {"embedding_multiplier": 2.0, "residual_multiplier": 0.5, "attention_multiplier": 0.3, "logits_scaling": 2.0}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 12}

# Name -> model type and config. The name is the family's, except where a family has a second model.
TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _BASE),
    "llama-grouped": ("llama", {**_GROUPED, "num_hidden_layers": 3}),
    "mistral": ("mistral", {**_GROUPED, "sliding_window": WINDOW}),
    "qwen2": ("qwen2", _GROUPED),
    "qwen3": ("qwen3", {**_GROUPED, "head_dim": 16}),
    "qwen3_moe": ("qwen3_moe", {**_GROUPED, **_EXPERTS, "head_dim": 8, "num_experts": 4}),
    "gemma2": ("gemma2", {**_GROUPED, "head_dim": 8, "sliding_window": WINDOW, **_CAPPED}),
    "gemma3_text": ("gemma3_text", {**_GROUPED, **_MIXED, "head_dim": 8, "query_pre_attn_scalar": 8}),
    "gpt2": ("gpt2", _GPT),
    "gpt_bigcode": ("gpt_bigcode", {**_GPT, "multi_query": True}),
    "gpt_neox": ("gpt_neox", _BASE),
    "opt": ("opt", {**_BASE, "dropout": 0.0, "ffn_dim": 64, "word_embed_proj_dim": 16, "init_std": 0.2}),
    "phi3": ("phi3", {**_GROUPED, "sliding_window": WINDOW}),
    "olmo2": ("olmo2", _GROUPED),
    "granite": ("granite", {**_GROUPED, **_MULTIPLIED}),
    "smollm3": ("smollm3", {**_GROUPED, "num_hidden_layers": 4}),
    "gpt_oss": (
        "gpt_oss",
        {**_GROUPED, "head_dim": 8, "num_experts_per_tok": 2, "num_local_experts": 4, "sliding_window": WINDOW, "rope_parameters": _ROPE},
    ),
    "deepseek_v3": (
        "deepseek_v3",
        {
            **_BASE,
            **_EXPERTS,
            **_LATENT,
            "n_routed_experts": 4,
            "n_group": 1,
            "topk_group": 1,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "num_key_value_heads": 4,
        },
    ),
}


def config(name: str, **changes: Any) -> PreTrainedConfig:
    """The config of a tiny model."""
    model_type, settings = TINY[name]
    return AutoConfig.for_model(model_type, **{**settings, **changes})


def network(name: str, **changes: Any) -> PreTrainedModel:
    """A fresh random model in fp32. Norms and biases are random too, so that none of them can be forgotten unnoticed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = AutoModelForCausalLM.from_config(config(name, **changes)).eval()
        with torch.no_grad():
            for parameter in made.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return made


@cache
def tokenizer(*, bos: bool = True, chat: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE over a few sentences: every text can be written, words are one to three pieces."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator(CORPUS, trainer)
    if bos:
        core.post_processor = processors.TemplateProcessing(single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", BOS)])
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "additional_special_tokens": ["<user>", "<model>"]}
    return PreTrainedTokenizerFast(tokenizer_object=core, **special, **({"chat_template": CHAT} if chat else {}))


def build(name: str, *, bos: bool = True, chat: bool = False, **changes: Any) -> FrozenModel:
    """A frozen tiny model of one's own, for tests that change it."""
    return wrap(network(name, **changes), copy.deepcopy(tokenizer(bos=bos, chat=chat)), name=f"tiny-{name}")


@cache
def frozen(name: str) -> FrozenModel:
    """A shared frozen tiny model: read it, never change it."""
    return build(name)
