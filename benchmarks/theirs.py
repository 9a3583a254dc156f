"""PEFT as a competent user has it: its configuration classes, its own initial values, a frozen model in eval mode without a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import models
import torch
from jaxtyping import Float
from peft import PeftModel, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from peft.tuners.cartridge.utils import initialize_kv_prefix_from_text
from torch import Tensor
from transformers import PreTrainedModel

from foreword.backbone.batch import collate
from foreword.prompts.template import Row


@dataclass(frozen=True)
class Variant:
    """A PEFT configuration of a method."""

    config: type[PromptTuningConfig | PromptEncoderConfig | PrefixTuningConfig]
    options: dict[str, Any] = field(default_factory=dict)
    text_cache: bool = False  # start from keys and values of the text


# By method and the name that `runs.RATES` has for it.
VARIANTS: dict[str, dict[str, Variant]] = {
    "prompt-tuning": {"text": Variant(PromptTuningConfig, {"prompt_tuning_init": "TEXT"})},
    "p-tuning": {"mlp": Variant(PromptEncoderConfig)},
    "prefix-tuning": {"projection": Variant(PrefixTuningConfig, {"prefix_projection": True})},
    "p-tuning-v2": {"text": Variant(PrefixTuningConfig, text_cache=True)},
}


def attach(network: PreTrainedModel, source: str, variant: Variant, *, length: int, text: str, seed: int = 0) -> PeftModel:
    """A PEFT model whose prompt alone has gradients; `source` is the folder of the model, whose tokenizer reads the text."""
    torch.manual_seed(seed)
    options = dict(variant.options)
    if options.get("prompt_tuning_init") == "TEXT":
        options |= {"prompt_tuning_init_text": text, "tokenizer_name_or_path": source}
    model = get_peft_model(network, variant.config(task_type="CAUSAL_LM", num_virtual_tokens=length, **options)).eval()
    if variant.text_cache:
        reader = models.tokenizer(source)
        repeated = " ".join([text] * (1 + length // max(1, len(reader(text)["input_ids"]) - 1)))  # it wants at least P tokens
        initialize_kv_prefix_from_text(model, reader, text=repeated, use_chat_template=False)
    return model


def trained(model: PeftModel) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def outputs_before(model: PeftModel) -> int:
    """How many of its outputs belong to virtual tokens: none where they are keys and values."""
    config = model.active_peft_config
    return 0 if isinstance(config, PrefixTuningConfig) else config.num_virtual_tokens


def token_losses(model: PeftModel, rows: Sequence[Row], pad: int) -> tuple[Float[Tensor, " M"], list[int]]:
    """Cross-entropy of the labelled tokens row by row in fp32, and how many each row has; logits for columns with labels only.

    Padded on the right: with pads on the left PEFT's input-level prompts would stand before the pads, away from the text.
    """
    batch = collate(rows, pad=pad, side="right")
    select = batch.labels >= 0
    place, column = select.nonzero(as_tuple=True)
    keep, where = (column - 1 + outputs_before(model)).unique(return_inverse=True)
    logits = model(input_ids=batch.ids, attention_mask=batch.mask.long(), use_cache=False, logits_to_keep=keep).logits
    losses = torch.nn.functional.cross_entropy(logits[place, where].float(), batch.labels[select], reduction="none")
    return losses, select.sum(1).tolist()
