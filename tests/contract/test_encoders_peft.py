"""Law of encoders: peft. Real PEFT, given the same flat numbers, gives the same states; its order is prompt before [CLS].

For keys and values PEFT has no rule that could be kept: on BERT-like models its text begins at position P, so that P of 512 positions are lost;
elsewhere it drops the prefix without a word, or fails.
"""

from __future__ import annotations

import pytest
import tiny_encoders
import torch
from contract.given import TOLERANCE, distance, prompt, spec
from contract.given_encoders import placed, stock, text
from contract.laws import law
from peft import PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from torch import Tensor

from foreword.backbone.batch import collate
from foreword.prompts.soft_prompt import as_tokens
from foreword.prompts.template import Row

LENGTH, COUNT = 4, 9
SHIFTED = ("bert", "roberta", "xlm-roberta", "electra")
DROPPED = ("distilbert", "albert", "mpnet")
FAILING = ("deberta-v2", "modernbert")

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # PEFT asks by the old name
]


def in_peft(name: str, flat: Tensor, site: str) -> PeftModel:
    """A stock encoder of the same weights under PEFT, with its table overwritten by ours."""
    shape = tiny_encoders.frozen(name).shape
    heads, dim = shape.kv[0].heads, shape.kv[0].dim
    shared = {"task_type": "FEATURE_EXTRACTION", "num_virtual_tokens": LENGTH, "num_layers": shape.num_layers, "num_attention_heads": heads}
    config = (
        PrefixTuningConfig(**shared, token_dim=heads * dim) if site == "kv" else PromptTuningConfig(**shared, token_dim=shape.embedding)
    )
    made = get_peft_model(tiny_encoders.network(name, attn_implementation="eager"), config).eval()
    with torch.no_grad():
        made.prompt_encoder["default"].embedding.weight.copy_(flat)
    return made


@torch.no_grad()
def states(made: PeftModel, row: Row) -> Tensor:
    ids = torch.tensor([row.ids])
    return made(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]


def untyped(name: str) -> Row:
    return Row(text(name, COUNT).ids)


@law("peft", "encoder")
def test_peft_says_the_same(method: str, name: str) -> None:
    model, made = tiny_encoders.frozen(name), spec(method, LENGTH)
    flat = prompt(model, made).bake()
    read = as_tokens(flat, made, model.shape)
    ours = model.hidden(collate([placed(untyped(name), read, (0,) * LENGTH)]), read)[0]
    truth = states(in_peft(name, flat, "input"), untyped(name))
    assert len(truth) == COUNT + LENGTH and distance(ours, truth[LENGTH:]) < TOLERANCE


@pytest.mark.parametrize("name", SHIFTED)
def test_a_prefix_in_peft_takes_positions(name: str) -> None:
    """Once our positions begin at P as well, the states are the same: nothing else differs."""
    model, made = tiny_encoders.frozen(name), spec("p-tuning-v2", LENGTH)
    flat = prompt(model, made).bake()
    ready = model.prepare(collate([untyped(name)]), as_tokens(flat, made, model.shape))
    truth = states(in_peft(name, flat, "kv"), untyped(name))
    with torch.no_grad():
        ours = model.network(**ready.inputs).last_hidden_state[0]
        shifted = model.network(**{**ready.inputs, "position_ids": ready.inputs["position_ids"] + LENGTH}).last_hidden_state[0]
    assert distance(shifted, truth) < TOLERANCE < 0.01 < distance(ours, truth)


@pytest.mark.parametrize("name", DROPPED)
def test_a_prefix_in_peft_is_dropped(name: str) -> None:
    flat = prompt(model := tiny_encoders.frozen(name), spec("p-tuning-v2", LENGTH)).bake()
    assert flat.shape[1] == sum(kv.width for kv in model.shape.kv)
    with torch.no_grad():
        bare = stock(name)(torch.tensor([untyped(name).ids])).last_hidden_state[0]
    assert distance(states(in_peft(name, flat, "kv"), untyped(name)), bare) < 1e-5


@pytest.mark.parametrize("name", FAILING)
def test_a_prefix_in_peft_fails(name: str) -> None:
    flat = prompt(tiny_encoders.frozen(name), spec("p-tuning-v2", LENGTH)).bake()
    made = in_peft(name, flat, "kv")
    with pytest.raises(RuntimeError, match="must match the size of tensor"):
        states(made, untyped(name))


def test_every_family_is_sorted() -> None:
    assert {model_type for model_type, *_ in tiny_encoders.TINY.values()} == {*SHIFTED, *DROPPED, *FAILING}
