"""LoRA and quantised bases of encoders and encoder–decoders: PEFT's own numbers, beside prefixes, with gradient checkpointing."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import tiny_encoders
import tiny_seq2seq
import torch
from contract.given import distance, prompt, words
from contract.given_seq2seq import row
from contract.given_seq2seq import spec as prompt_spec
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from torch import Tensor, nn

from foreword.backbone.batch import Batch, collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.loading.load_model import load
from foreword.backbone.weights.lora import LORA, LoraLayers, attach
from foreword.families.registry import FAMILIES
from foreword.prompts.template import Row
from foreword.recipe import LoraSpec

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT asks by the old name

ENCODERS, BOTH = list(tiny_encoders.TINY), list(tiny_seq2seq.SEQ2SEQ)
CASES = [(tiny_encoders, name) for name in ENCODERS] + [(tiny_seq2seq, name) for name in BOTH]
TIED = {name: {"tie_word_embeddings": True} for name in ("mbart", "marian", "pegasus")}  # as their checkpoints are published
every = pytest.mark.parametrize(("home", "name"), CASES, ids=[name for _, name in CASES])


def batch_for(model: FrozenModel) -> Batch:
    if model.shape.kind == "encoder":
        return collate([Row(words(n, n)) for n in (4, 9)], pad=model.tokenizer.pad)
    return collate([row(5, 3), row(7, 2)], pad=model.tokenizer.pad)


def read(model: FrozenModel, batch: Batch, tokens: object = None) -> Tensor:
    """What a task reads: an encoder's states at real tokens, else the answer's logits."""
    if model.shape.kind == "encoder":
        return model.hidden(batch, tokens)[batch.mask]  # type: ignore[arg-type]
    return model.predicting(batch, tokens, batch.labels >= 0)  # type: ignore[arg-type]


def trained(model: FrozenModel, spec: LoraSpec) -> tuple[FrozenModel, LoraLayers]:
    view, layers = attach(model, spec)
    assert torch.equal(read(view, batch_for(model)), read(model, batch_for(model)))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return view, layers


@every
def test_the_numbers_are_those_of_pefts_own_lora(home: ModuleType, name: str) -> None:
    model = home.frozen(name)
    view, layers = trained(model, LoraSpec(4))
    targets = list(FAMILIES[model.shape.family].lora_targets)
    theirs = get_peft_model(home.network(name), LoraConfig(r=4, lora_alpha=16, target_modules=targets)).eval()
    report = set_peft_model_state_dict(theirs, {key.removeprefix(LORA): tensor for key, tensor in layers.state().items()})
    assert not report.unexpected_keys and not [key for key in report.missing_keys if "lora" in key]
    merged = FrozenModel(theirs.merge_and_unload(), model.tokenizer.inner, model.shape, name)
    batch = batch_for(model)
    assert distance(read(view, batch), read(merged, batch)) < 1e-4
    assert distance(read(view, batch), read(model, batch)) > 1e-2


@every
def test_beside_a_prefix_with_gradient_checkpointing_all_of_it_learns(home: ModuleType, name: str) -> None:
    quiet = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0} if home is tiny_seq2seq and "t5" not in name else {}
    model = home.build(name, **quiet)
    assert "kv" in FAMILIES[model.shape.family].sites
    view, layers = trained(model, LoraSpec(4, targets="all-linear"))
    soft, batch, found = prompt(model, prompt_spec("p-tuning-v2")), batch_for(model), []
    adapter_state = [*soft.parameters(), *layers.parameters()]
    for on in (False, True):
        with view.gradient_checkpointing(on):
            read(view, batch, soft()).square().mean().backward()
        assert all(parameter.grad is not None for parameter in adapter_state)
        found.append([parameter.grad.clone() for parameter in adapter_state if parameter.grad is not None])
        for parameter in adapter_state:
            parameter.grad = None
    assert all(bool(gradient.any()) for gradient in found[0])
    for off, on in zip(*found, strict=True):
        torch.testing.assert_close(on, off, rtol=1e-4, atol=1e-6)
    assert distance(read(view, batch, soft()), read(model, batch, soft())) > 1e-3


@pytest.mark.parametrize("kind", ["nf4", "int8"])
@every
def test_a_quantised_base_carries_prefix_and_lora(home: ModuleType, name: str, kind: str, tmp_path: Path) -> None:
    home.network(name, **TIED.get(name, {})).save_pretrained(tmp_path)
    home.tokenizer(name).save_pretrained(tmp_path)
    model = load(tmp_path, quantize=kind, device="cpu")
    assert model.quantization == kind and model.fingerprint.endswith(f"-{kind}")
    before = {key: parameter.clone() for key, parameter in model.network.named_parameters()}
    assert sum(p.numel() for p in before.values() if not p.is_floating_point()) / count(model.network, kind) > 0.5
    plain, batch = load(tmp_path, device="cpu"), batch_for(model)
    assert distance(read(model, batch), read(plain, batch)) > 0
    view, layers = trained(model, LoraSpec(4))
    with view.gradient_checkpointing():
        read(view, batch).square().mean().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in layers.parameters())
    assert all(torch.equal(before[key], parameter) for key, parameter in model.network.named_parameters())


def count(network: nn.Module, kind: str) -> float:
    """Bytes that the weights of all linear layers but the last would take if every one of them were quantised."""
    whole = sum(module.in_features * module.out_features for module in network.modules() if isinstance(module, nn.Linear))
    return whole / (2 if kind == "nf4" else 1)
