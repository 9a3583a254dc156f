"""Bases in 4-bit NF4 and 8-bit integers: what is stored, that it never changes, and what trains on it. All on a CPU."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Barrier, Thread

import pytest
import tiny
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from contract.given import distance, labelled, prompt, spec, words
from torch import nn
from transformers import AutoConfig

from foreword.backbone.batch import Batch, collate
from foreword.backbone.fingerprint import fingerprint_model, quantization_in
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.generation.greedy_search import generate
from foreword.backbone.loading.load_model import load
from foreword.backbone.quantization import quantised_loading
from foreword.backbone.weights import weight_adapters
from foreword.backbone.weights.full_finetuning import full_copy
from foreword.backbone.weights.lora import attach
from foreword.errors import ModelError
from foreword.methods import METHODS
from foreword.prompts.template import Row
from foreword.recipe import LoraSpec, Quantize, Recipe

KINDS: tuple[Quantize, ...] = ("nf4", "int8")
NAMES = ("llama", "gpt2", "gemma3_text", "phi3")
Saved = Callable[[str], Path]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """The folder of a tiny model by name."""

    @cache
    def folder(name: str) -> Path:
        path = tmp_path_factory.mktemp(name)
        tiny.network(name).save_pretrained(path)
        tiny.tokenizer().save_pretrained(path)
        return path

    return folder


def train_features(soft: int = 0) -> Batch:
    return collate([labelled((tiny.BOS, *words(n)), (0,) * soft, (-100, *words(n, 1))) for n in (4, 9)], pad=tiny.PAD)


def plain(model: FrozenModel, name: str) -> FrozenModel:
    """The same numbers in ordinary layers: quantised weights written out by bitsandbytes itself."""
    network = tiny.network(name)
    with torch.no_grad():
        for path, module in model.network.named_modules():
            if isinstance(module, Linear4bit):
                weight = dequantize_4bit(module.weight.data, module.weight.quant_state)
            elif isinstance(module, Linear8bitLt):
                assert module.state.CB is not None and module.state.SCB is not None
                weight = module.state.CB.float() * module.state.SCB[:, None] / 127
            else:
                continue
            target = network.get_submodule(path)
            target.weight.copy_(weight if isinstance(target, nn.Linear) else weight.T)
    return FrozenModel(network, model.tokenizer.inner, model.shape, name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_a_quantised_base_computes_with_the_rounded_weights_and_nothing_else(saved: Saved, name: str, kind: Quantize) -> None:
    model = load(saved(name), quantize=kind, device="cpu")
    exact, batch = plain(model, name), train_features()
    ours, theirs = model.forward(batch)[batch.mask], exact.forward(batch)[batch.mask]
    assert distance(ours, theirs) < 1e-4
    with torch.no_grad():
        assert distance(model.forward(batch)[batch.mask], theirs) < 1e-4
    assert distance(theirs, tiny.frozen(name).forward(batch)[batch.mask]) > 1e-3
    alone = collate([Row((tiny.BOS, *words(4)))])
    assert distance(model.forward(alone)[0], model.forward(batch)[batch.mask][:5]) < 1e-4
    assert generate(model, alone, None, max_new_tokens=5, stop=()) == generate(exact, alone, None, max_new_tokens=5, stop=())


@pytest.mark.parametrize("kind", KINDS)
def test_linear_layers_are_quantised_and_what_stands_at_both_ends_is_not(saved: Saved, kind: Quantize) -> None:
    model = load(saved("llama"), quantize=kind, device="cpu")
    assert model.quantization == kind and model.dtype == torch.float32
    stored = {name: parameter.dtype for name, parameter in model.network.named_parameters()}
    small = torch.uint8 if kind == "nf4" else torch.int8
    assert {name.split(".")[3] for name, dtype in stored.items() if dtype == small} == {"self_attn", "mlp"}
    assert stored["model.embed_tokens.weight"] == stored["lm_head.weight"] == torch.float32


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_every_method_trains_on_it_with_gradient_checkpointing(saved: Saved, name: str, method: str, kind: Quantize) -> None:
    model = load(saved(name), quantize=kind, device="cpu")
    exact, soft = plain(model, name), prompt(tiny.frozen(name), spec(method))
    batch, marks = train_features(4 if soft.spec.site == "input" else 0), model.fingerprint
    before = {key: parameter.clone() for key, parameter in model.network.named_parameters()}
    found = []
    for reader, on in ((exact, False), (model, False), (model, True)):
        with reader.gradient_checkpointing(on):
            logits = reader.predicting(batch, soft(), batch.labels >= 0)
            nn.functional.cross_entropy(logits, batch.labels[batch.labels >= 0]).backward()
        found.append([parameter.grad.clone() for parameter in soft.parameters() if parameter.grad is not None])
        soft.zero_grad()
    assert any(bool(gradient.any()) for gradient in found[0])
    for theirs, off, checkpointed in zip(*found, strict=True):
        torch.testing.assert_close(off, theirs, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(checkpointed, off, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(before[key], parameter) for key, parameter in model.network.named_parameters())
    assert fingerprint_model(model.network, model.shape) == marks


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_lora_on_it_is_lora_on_the_rounded_weights_and_shares_every_byte(saved: Saved, name: str, kind: Quantize) -> None:
    model, batch = load(saved(name), quantize=kind, device="cpu"), train_features()
    exact = plain(model, name)
    recipe = Recipe("qlora", lora=LoraSpec(4, targets="all-linear"), quantize=kind)
    view, layers = weight_adapters.apply(model, recipe, seed=1)
    assert layers is not None and view.quantization == kind and view.fingerprint == model.fingerprint
    assert distance(view.forward(batch)[batch.mask], model.forward(batch)[batch.mask]) == 0
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    assert recipe.lora is not None
    twin, others = attach(exact, recipe.lora, tensors=layers.state())
    for reader, inside in ((view, layers), (twin, others)):
        with reader.gradient_checkpointing():
            reader.forward(batch)[batch.mask].square().mean().backward()
        assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in inside.parameters())
    for ours, theirs in zip(layers.parameters(), others.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)
    assert distance(view.forward(batch)[batch.mask], twin.forward(batch)[batch.mask]) < 1e-4
    ours = {parameter.data_ptr() for parameter in layers.parameters()}
    shared = {tensor.data_ptr() for tensor in (*model.network.parameters(), *model.network.buffers())}
    assert {tensor.data_ptr() for tensor in (*view.network.parameters(), *view.network.buffers())} <= ours | shared
    for module, twin_module in zip(quantised(model), quantised(view), strict=True):
        assert module is not twin_module
        if isinstance(module, Linear8bitLt) and isinstance(twin_module, Linear8bitLt):
            assert module.state is twin_module.state
        else:
            assert module.weight.quant_state is twin_module.weight.quant_state


def quantised(model: FrozenModel) -> list[nn.Module]:
    return [module for module in model.network.modules() if isinstance(module, Linear4bit | Linear8bitLt)]


@pytest.mark.parametrize("kind", KINDS)
def test_first_passes_of_several_threads_do_not_meet(saved: Saved, kind: Quantize) -> None:
    expected, batch = load(saved("llama"), quantize=kind, device="cpu").forward(train_features()), train_features()
    model = load(saved("llama"), quantize=kind, device="cpu")
    start, wrong = Barrier(3), []

    def read() -> None:
        start.wait()
        for _ in range(5):
            if not torch.equal(model.forward(batch), expected):
                wrong.append(1)

    threads = [Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_fingerprint_tells_how_a_base_is_quantised(saved: Saved) -> None:
    marks = [load(saved("llama"), quantize=kind, device="cpu").fingerprint for kind in (None, *KINDS)]
    assert [quantization_in(mark) for mark in marks] == [None, "nf4", "int8"]
    assert len({mark[:16] for mark in marks}) == 3 and len(marks[0]) == 16
    assert load(saved("llama"), quantize="nf4", device="cpu").fingerprint == marks[1]


def test_int8_on_a_cpu_rounds_no_activations(saved: Saved, caplog: pytest.LogCaptureFixture) -> None:
    """bitsandbytes says in its log when it rounds activations to fp16 and then to 8 bits."""
    model = load(saved("gemma3_text"), quantize="int8", device="cpu")
    with caplog.at_level(logging.WARNING):
        model.forward(train_features())
        attach(model, LoraSpec(4))[0].forward(train_features())
    assert caplog.messages == []


def test_what_cannot_be_quantised_is_refused(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError) as caught:
        load(saved("llama"), quantize="fp4", device="cpu")
    assert str(caught.value) == "quantize 'fp4' is not known; choose nf4 or int8."
    for name in ("qwen3_moe", "gpt_oss", "deepseek_v3"):
        with pytest.raises(ModelError) as caught:
            load(saved(name), quantize="nf4", device="cpu")
        assert str(caught.value) == (
            f"model type '{name}' keeps its experts in tensors that bitsandbytes leaves as they are; load it without quantize."
        )
    with pytest.raises(ModelError) as caught:
        load(saved("llama"), quantize="nf4", device="meta")
    assert str(caught.value) == "quantize 'nf4' runs on cpu and cuda, but the device is 'meta'; give one of these."
    model = load(saved("llama"), quantize="nf4", device="cpu")
    with pytest.raises(ModelError) as caught:
        full_copy(model)
    assert str(caught.value) == (
        f"'{saved('llama')}' is loaded in nf4, which cannot be trained in full; load it without quantize, or use LoRA."
    )
    with pytest.raises(ModelError) as caught:
        weight_adapters.apply(model, Recipe("qlora", lora=LoraSpec(4), quantize="int8"))
    assert str(caught.value) == (
        f"method 'qlora' is for a base in int8, but '{saved('llama')}' is loaded in nf4; load it with quantize='int8'."
    )


def test_a_checkpoint_that_is_quantised_already_and_a_missing_package_are_refused(
    saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = AutoConfig.from_pretrained(saved("llama"))
    config.quantization_config = {"quant_method": "gptq", "bits": 4}
    with pytest.raises(ModelError) as caught:
        quantised_loading("some-model", config, "nf4", torch.float32, "cpu")
    assert str(caught.value) == "model 'some-model' is already stored in gptq, so it cannot be quantised again; leave quantize out."
    monkeypatch.setattr("foreword.backbone.quantization.find_spec", lambda name: None)
    with pytest.raises(ModelError) as caught:
        load(saved("llama"), quantize="int8", device="cpu")
    assert str(caught.value) == "quantize 'int8' needs bitsandbytes, which is not installed; run pip install 'foreword[quantize]'."


def test_half_precision_is_kept_around_it(saved: Saved) -> None:
    model = load(saved("llama"), quantize="nf4", dtype="bfloat16", device="cpu")
    assert model.dtype == torch.bfloat16 and model.forward(train_features()).dtype == torch.bfloat16
    view, layers = attach(model, replace(LoraSpec(4), dropout=0.1))
    view.forward(train_features()).float().square().mean().backward()
    assert {parameter.grad.dtype for parameter in layers.parameters() if parameter.grad is not None} == {torch.float32}
