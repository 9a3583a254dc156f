"""LoRA over frozen weights: PEFT's own numbers, and a frozen model that never notices."""

from __future__ import annotations

from dataclasses import replace
from threading import Barrier, Thread

import pytest
import tiny
import torch
from contract.given import distance, labelled, prompt, spec, words
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from torch import Tensor, nn

from foreword.backbone.batch import Batch, collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.generation.greedy_search import generate
from foreword.backbone.weights import weight_adapters
from foreword.backbone.weights.lora import LORA, LoraLayers, attach
from foreword.errors import ModelError
from foreword.families.registry import FAMILIES
from foreword.prompts.template import Row
from foreword.recipe import LoraSpec, Recipe

# PEFT asks by the old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

SPEC = LoraSpec(4)
KINDS = {"plain": SPEC, "rslora": replace(SPEC, rslora=True, alpha=3.0), "all-linear": replace(SPEC, targets="all-linear")}
FAMILIES_WITH_PEFT = ["llama", "gpt2", "gpt_neox", "phi3", "gemma2", "opt", "deepseek_v3"]


def rows(*lengths: int) -> Batch:
    return collate([Row((tiny.BOS, *words(n, n))) for n in lengths or (4, 9)], pad=tiny.PAD)


def train_features(soft: int = 0) -> Batch:
    return collate([labelled((tiny.BOS, *words(n)), (0,) * soft, (-100, *words(n, 1))) for n in (4, 9)], pad=tiny.PAD)


def trained(model: FrozenModel, spec: LoraSpec = SPEC, seed: int = 0) -> tuple[FrozenModel, LoraLayers]:
    """A LoRA whose every number is moved, or B = 0 would hide it."""
    view, layers = attach(model, spec, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return view, layers


def same(left: Tensor, right: Tensor, batch: Batch) -> float:
    """The largest difference at real tokens."""
    return distance(left[batch.mask], right[batch.mask])


@pytest.mark.parametrize("name", tiny.TINY)
@pytest.mark.parametrize("targets", ["attention", "all-linear"])
def test_a_fresh_lora_is_the_frozen_model_which_never_notices_it(name: str, targets: str) -> None:
    model, batch = tiny.build(name), rows()
    before = {key: tensor.clone() for key, tensor in model.network.state_dict().items()}
    plain, marks = model.forward(batch), model.fingerprint
    view, layers = attach(model, replace(SPEC, targets=targets))
    assert torch.equal(view.forward(batch), plain)
    assert (view.fingerprint, view.tokenizer_fingerprint, view.name) == (marks, model.tokenizer_fingerprint, model.name)
    view, layers = trained(model, replace(SPEC, targets=targets))
    batch = train_features()
    nn.functional.cross_entropy(view.predicting(batch, None, batch.labels >= 0), batch.labels[batch.labels >= 0]).backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in layers.parameters())
    assert same(view.forward(rows()), plain, rows()) > 1e-2
    assert torch.equal(model.forward(rows()), plain)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    ours = {parameter.data_ptr() for parameter in layers.parameters()}
    shared = {tensor.data_ptr() for tensor in (*model.network.parameters(), *model.network.buffers())}
    assert {tensor.data_ptr() for tensor in (*view.network.parameters(), *view.network.buffers())} <= ours | shared


def in_peft(name: str, spec: LoraSpec, layers: LoraLayers) -> PeftModel:
    """PEFT's own model of the same recipe with our numbers, under our names."""
    config = LoraConfig(
        r=spec.r,
        lora_alpha=spec.alpha,  # type: ignore[arg-type]
        target_modules=spec.targets if isinstance(spec.targets, str) else list(spec.targets),
        use_rslora=spec.rslora,
        fan_in_fan_out=name == "gpt2",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(tiny.network(name), config).eval()
    report = set_peft_model_state_dict(model, {key.removeprefix(LORA): tensor for key, tensor in layers.state().items()})
    assert not report.unexpected_keys and not [key for key in report.missing_keys if "lora" in key]
    return model  # type: ignore[return-value]


# On models of experts PEFT puts all-linear on the experts' tensors as well, Foreword does not.
CASES = [(name, kind) for name in FAMILIES_WITH_PEFT for kind in KINDS if (name, kind) != ("deepseek_v3", "all-linear")]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_logits_are_those_of_pefts_own_lora(name: str, kind: str) -> None:
    model, spec = tiny.frozen(name), KINDS[kind]
    view, layers = trained(model, spec)
    if spec.targets == "attention":
        spec = replace(spec, targets=FAMILIES[tiny.TINY[name][0]].lora_targets)
    ids = torch.tensor([[tiny.BOS, *words(7)]])
    theirs = in_peft(name, spec, layers)(ids).logits
    assert distance(view.forward(collate([Row(tuple(ids[0].tolist()))])), theirs) < 1e-4
    assert distance(model.forward(collate([Row(tuple(ids[0].tolist()))])), theirs) > 1e-2


@pytest.mark.parametrize("method", ["prompt-tuning", "prefix-tuning"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3_text"])
def test_a_prompt_and_lora_in_one_pass_are_the_prompt_on_the_merged_model(name: str, method: str) -> None:
    model = tiny.frozen(name)
    view, layers = trained(model)
    soft, batch = prompt(model, spec(method)), train_features(4 if method == "prompt-tuning" else 0)
    targets = replace(SPEC, targets=FAMILIES[tiny.TINY[name][0]].lora_targets)
    merged = FrozenModel(in_peft(name, targets, layers).merge_and_unload(), model.tokenizer.inner, model.shape, "merged")
    ours, theirs = view.forward(batch, soft()), merged.forward(batch, soft())
    assert same(ours, theirs, batch) < 1e-4
    assert same(ours, model.forward(batch, soft()), batch) > 1e-2
    ours[batch.mask].square().mean().backward()
    adapter_state = [*soft.parameters(), *layers.parameters()]
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in adapter_state)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3_text", "phi3"])
def test_gradients_with_checkpointing_equal_those_without(name: str) -> None:
    model = tiny.frozen(name)
    view, layers = trained(model, replace(SPEC, dropout=0.5))
    layers.train()
    soft, batch = prompt(model, spec("prefix-tuning")), train_features()
    found = []
    for on in (False, True):
        torch.manual_seed(3)  # dropout of LoRA's own: the pass that is computed again must draw the same
        with view.gradient_checkpointing(on):
            logits = view.predicting(batch, soft(), batch.labels >= 0)
            loss = nn.functional.cross_entropy(logits, batch.labels[batch.labels >= 0])
        loss.backward()
        adapter_state = [*soft.parameters(), *layers.parameters()]
        found.append([parameter.grad.clone() for parameter in adapter_state if parameter.grad is not None])
        for parameter in adapter_state:
            parameter.grad = None
    assert len(found[0]) == len(found[1]) > len(layers.parameters())
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)


def test_threads_with_loras_of_their_own_do_not_meet() -> None:
    model, batch = tiny.build("llama"), rows()
    readers = [model, trained(model, seed=1)[0], trained(model, replace(SPEC, r=2, targets="all-linear"), seed=2)[0]]
    alone = [reader.forward(batch) for reader in readers]
    start, wrong = Barrier(len(readers)), []

    def read(index: int) -> None:
        start.wait()
        for _ in range(20):
            if not torch.equal(readers[index].forward(batch), alone[index]):
                wrong.append(index)

    threads = [Thread(target=read, args=(index,)) for index in range(len(readers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert all(same(alone[i], alone[j], batch) > 1e-2 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_generation_initialisers_and_predictions_see_the_lora() -> None:
    model = tiny.build("llama")
    view, layers = trained(model)
    merged = in_peft("llama", replace(SPEC, targets=("q_proj", "v_proj")), layers).merge_and_unload()
    batch = collate([Row((tiny.BOS, *words(5)))])
    expected = merged.generate(batch.ids, max_new_tokens=6, do_sample=False, eos_token_id=None)[0, 6:].tolist()
    assert generate(view, batch, None, max_new_tokens=6, stop=()) == [expected] != generate(model, batch, None, max_new_tokens=6, stop=())
    run = model.embed(words(3))
    assert distance(view.keys_values(run), model.keys_values(run)) > 1e-2
    assert distance(view.hidden(batch), model.hidden(batch)) > 1e-2


def test_saved_numbers_read_the_same_and_go_by_pefts_names() -> None:
    model, batch = tiny.build("gpt2"), rows()
    view, layers = trained(model, replace(SPEC, rslora=True))
    state = layers.state()
    assert sorted(state)[:2] == [
        "lora.base_model.model.transformer.h.0.attn.c_attn.lora_A.weight",
        "lora.base_model.model.transformer.h.0.attn.c_attn.lora_B.weight",
    ]
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    again, _ = attach(model, replace(SPEC, rslora=True), tensors=state | {"head.weight": torch.ones(1)})
    assert torch.equal(again.forward(batch), view.forward(batch))
    with torch.no_grad():
        layers.parameters()[0].add_(1)
    assert not torch.equal(next(iter(layers.state().values())), next(iter(state.values()))), "a state is a copy"
    layers.load(state)
    assert torch.equal(again.forward(batch), view.forward(batch))


def test_a_seed_fixes_the_first_numbers_and_leaves_the_callers_alone() -> None:
    model = tiny.build("llama")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (attach(model, SPEC, seed=seed)[1].state() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    name = next(iter(first))
    assert torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name])


def test_dropout_is_loras_own_and_off_until_asked_for() -> None:
    model, batch = tiny.build("llama"), rows()
    view, layers = trained(model, replace(SPEC, dropout=0.5))
    still = view.forward(batch)
    assert torch.equal(view.forward(batch), still)
    layers.train()
    assert not torch.equal(view.forward(batch), still)
    layers.train(False)
    assert torch.equal(view.forward(batch), still)


def test_a_frozen_lora_trains_nothing_and_one_in_half_precision_trains_in_full() -> None:
    model = tiny.build("llama")
    state = trained(model)[1].state()
    view, layers = attach(model, replace(SPEC, path="elsewhere", frozen=True), tensors=state)
    assert layers.parameters() == [] and not any(parameter.requires_grad for parameter in view.network.parameters())
    half = FrozenModel(tiny.network("llama").to(torch.bfloat16), model.tokenizer.inner, model.shape, "half")
    view, layers = trained(half)
    assert {parameter.dtype for parameter in layers.parameters()} == {torch.float32}
    assert view.dtype == torch.bfloat16 and view.forward(rows()).dtype == torch.bfloat16


def test_a_recipe_says_which_model_reads() -> None:
    model = tiny.build("llama")
    assert weight_adapters.apply(model, Recipe("head-only")) == (model, None)
    view, inside = weight_adapters.apply(model, Recipe("lora", lora=SPEC), seed=1)
    assert view is not model and isinstance(inside, LoraLayers) and isinstance(inside, weight_adapters.WeightAdapter)
    with pytest.raises(ModelError) as caught:
        weight_adapters.apply(model, Recipe("qlora", lora=SPEC, quantize="nf4"))
    assert str(caught.value) == (
        "method 'qlora' is for a base in nf4, but 'tiny-llama' is loaded without quantisation; load it with quantize='nf4'."
    )


def test_a_lora_of_another_base_is_refused() -> None:
    model = tiny.build("llama")
    state = trained(model)[1].state()
    with pytest.raises(ModelError) as caught:
        attach(tiny.build("llama-grouped"), SPEC, tensors=state)
    assert str(caught.value) == (
        "the LoRA has no model.layers.2.self_attn.q_proj.lora_A.weight, where 'tiny-llama-grouped' reads one; "
        "load it on its own base model, with its own targets."
    )
    with pytest.raises(ModelError) as caught:
        attach(model, replace(SPEC, targets="q_proj"), tensors=state)
    assert str(caught.value) == (
        "the LoRA has model.layers.0.self_attn.v_proj.lora_A.weight, but 'tiny-llama' has no place for it; "
        "load it on its own base model, with its own targets."
    )
    with pytest.raises(ModelError) as caught:
        attach(tiny.build("qwen2"), SPEC, tensors=state)
    assert str(caught.value) == (
        "the LoRA's model.layers.0.self_attn.v_proj.lora_B.weight has shape [32, 4], but 'tiny-qwen2' needs [16, 4] for r 4; "
        "load it on its own base model."
    )
