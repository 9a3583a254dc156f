"""The models that both sides load in the same way: a folder, or a random one of a small vocabulary that is saved nowhere."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

SMALL = "random-gpt2"  # 12 layers, H 512, V 2,000: little to gain at the output matrix
_VOCABULARY = 2000


def network(source: str) -> PreTrainedModel:
    """The plain transformers model in its checkpoint's precision; bf16 for the random one."""
    if source != SMALL:
        return AutoModelForCausalLM.from_pretrained(source, dtype="auto").eval()
    torch.manual_seed(0)
    shape = GPT2Config(vocab_size=_VOCABULARY, n_embd=512, n_layer=12, n_head=8, n_positions=512, bos_token_id=1, eos_token_id=2)
    return AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16).eval()


def tokenizer(source: str) -> PreTrainedTokenizerBase:
    if source != SMALL:
        return AutoTokenizer.from_pretrained(source)
    words = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"w{i}": i for i in range(3, _VOCABULARY)}}
    core = Tokenizer(WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
