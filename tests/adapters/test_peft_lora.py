"""LoRA out to real PEFT and in from it, with equal logits; a prompt with LoRA as two folders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from adapters.making import adapter
from contract.given import TOLERANCE, distance
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from foreword.adapters.adapter import Adapter
from foreword.adapters.peft_import_export import TOGETHER, export_folders, import_folder
from foreword.adapters.peft_lora import read_lora
from foreword.backbone.batch import collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.loading.load_model import load
from foreword.backbone.weights.lora import attach
from foreword.errors import AdapterError, FingerprintError, ModelError
from foreword.prompts.template import Template
from foreword.recipe import LoraSpec, Recipe
from foreword.tasks.generate import Generate

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT asks by the old name

TEXT = "a joy to watch and a dull mess of a film"
PLAIN = "{text}\nLabel: {answer}"
KINDS = {
    "plain": LoraSpec(4),
    "rslora": LoraSpec(4, 3.0, rslora=True),
    "all-linear": LoraSpec(4, targets="all-linear"),
    "named": LoraSpec(2, targets=("mlp.down_proj", "o_proj")),
}
CASES = [("llama", kind) for kind in KINDS] + [(name, kind) for name in ("gpt2", "phi3", "gemma2") for kind in ("plain", "all-linear")]


def numbers(model: FrozenModel, spec: LoraSpec) -> dict[str, Tensor]:
    """A LoRA's state with every number moved."""
    generator = torch.Generator().manual_seed(7)
    return {name: 0.2 * torch.randn(tensor.shape, generator=generator) for name, tensor in attach(model, spec)[1].state().items()}


def with_lora(name: str, spec: LoraSpec, method: str | None = None, template: str = PLAIN) -> Adapter:
    """An adapter with LoRA, beside a prompt or alone."""
    made = adapter(name, method or "prefix-tuning", template=template, window="model")
    lora = numbers(tiny.frozen(name), spec)
    if method is None:
        return replace(made, recipe=Recipe("lora", lora=spec), tensors=lora)
    return replace(made, recipe=made.recipe + spec, tensors=made.tensors | lora)


@torch.no_grad()
def our_logits(made: Adapter, model: FrozenModel) -> Tensor:
    """Our logits of an adapter's own template."""
    made.check(model.info)
    template = Template.parse(made.task["template"], bos=made.task["bos"])
    soft = made.spec.length if made.recipe.prompt and made.spec.site == "input" else 0
    row = template.render({"text": TEXT, "input": TEXT}, model.tokenizer, soft)
    return made.model(model).forward(collate([row]), made.tokens())[0]


@torch.no_grad()
def logits(model: nn.Module, ids: list[int]) -> Tensor:
    return model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long)).logits[0]


def fed(model: FrozenModel, note: str) -> list[int]:
    """Token ids as an export's note tells the user to make them for PEFT."""
    shown = note.partition("Give PEFT the text '")[2].split("', tokenised")[0].encode().decode("unicode_escape")
    special = note.endswith("add_special_tokens=True.")
    return model.tokenizer.inner(shown.replace("{text}", TEXT), add_special_tokens=special)["input_ids"]


@pytest.mark.parity
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_lora_alone_becomes_one_folder_that_peft_reads_with_our_logits(name: str, kind: str, tmp_path: Path) -> None:
    made, model = with_lora(name, KINDS[kind]), tiny.frozen(name)
    (exported,) = export_folders(made, tmp_path / "out", model)
    assert (exported.path, exported.peft_type) == (tmp_path / "out", "LORA")
    theirs = PeftModel.from_pretrained(tiny.network(name), exported.path).eval()
    ours = our_logits(made, model)
    assert distance(ours, logits(theirs, fed(model, exported.note))) < TOLERANCE
    assert distance(ours, our_logits(replace(made, recipe=Recipe("zero-shot"), tensors={}), model)) > 1e-2


@pytest.mark.parity
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize(
    ("method", "template", "kind"),
    [
        ("prompt-tuning", "{soft}{bos}" + PLAIN, "PROMPT_TUNING"),
        ("p-tuning", "{bos}{soft}" + PLAIN, "PREFIX_TUNING"),
        ("prefix-tuning", PLAIN, "PREFIX_TUNING"),
    ],
)
def test_a_prompt_with_lora_becomes_two_folders(name: str, method: str, template: str, kind: str, tmp_path: Path) -> None:
    """A prompt behind BOS is compiled by the model with its LoRA: without it, the keys and values would be others."""
    made, model = with_lora(name, KINDS["plain"], method, template), tiny.frozen(name)
    prompt, lora = export_folders(made, tmp_path / "out", model)
    assert (prompt.path, lora.path) == (tmp_path / "out" / "prompt", tmp_path / "out" / "lora")
    assert (prompt.peft_type, lora.peft_type) == (kind, "LORA")
    assert lora.note == TOGETHER and prompt.note.startswith(TOGETHER + " Give PEFT the text")
    network = tiny.network(name)
    network.load_adapter(lora.path)
    theirs = PeftModel.from_pretrained(network, prompt.path).eval()
    ids = fed(model, prompt.note)
    assert distance(our_logits(made, model)[-len(ids) :], logits(theirs, ids)[-len(ids) :]) < TOLERANCE


def in_peft(folder: Path, name: str = "llama", *, move: bool = True, **changes: Any) -> nn.Module:
    """A LoRA that PEFT made and saved."""
    config = LoraConfig(**{"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **changes})
    model = get_peft_model(tiny.network(name), config).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_" in key and move:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(str(folder))
    return model


@pytest.mark.parity
@pytest.mark.parametrize(
    ("changes", "targets"),
    [
        ({}, ("q_proj", "v_proj")),
        ({"use_rslora": True, "lora_alpha": 3, "lora_dropout": 0.1}, ("q_proj", "v_proj")),
        ({"layers_to_transform": [1]}, ("model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.v_proj")),
        ({"target_modules": r".*layers\.0.*o_proj"}, ("model.layers.0.self_attn.o_proj",)),
    ],
    ids=["plain", "rslora", "one-layer", "pattern"],
)
def test_pefts_lora_comes_in_with_its_logits_and_goes_out_again(changes: dict[str, Any], targets: tuple[str, ...], tmp_path: Path) -> None:
    theirs, model = in_peft(tmp_path / "in", **changes), tiny.frozen("llama")
    made = import_folder(tmp_path / "in", model, task=Generate(template=Template.parse("{text}{answer}")).to_dict())
    assert made.method == "lora" and made.recipe.lora is not None and made.recipe.lora.targets == targets
    assert made.provenance["imported"]["peft_type"] == "LORA" and made.task["template"] == "{bos}{text}{answer}"
    ids = model.tokenizer.inner(TEXT)["input_ids"]
    assert distance(our_logits(made, model), logits(theirs, ids)) < TOLERANCE
    made.save(tmp_path / "ours")
    again = Adapter.load(tmp_path / "ours")
    assert torch.equal(our_logits(again, model), our_logits(made, model))
    (exported,) = export_folders(again, tmp_path / "out")
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (tmp_path / "in", exported.path))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_a_soft_prompt_still_goes_its_own_way(tmp_path: Path) -> None:
    made, model = adapter("llama", "prefix-tuning", template=PLAIN, window="model"), tiny.frozen("llama")
    (exported,) = export_folders(made, tmp_path / "out", model)
    assert exported.peft_type == "PREFIX_TUNING"
    assert torch.equal(import_folder(tmp_path / "out", model).flat, made.flat)


def test_a_lora_to_start_from(tmp_path: Path) -> None:
    model, made = tiny.frozen("llama"), with_lora("llama", KINDS["plain"], "prefix-tuning")
    made.save(tmp_path / "ours")
    spec, found = read_lora(tmp_path / "ours", model)
    assert spec == KINDS["plain"] and found.keys() == {key for key in made.tensors if key.startswith("lora.")}
    in_peft(tmp_path / "theirs")
    spec, found = read_lora(tmp_path / "theirs", model)
    assert spec == LoraSpec(4, 8.0, ("q_proj", "v_proj")) and attach(model, spec, tensors=found)
    adapter("llama").save(tmp_path / "prompt")
    with pytest.raises(AdapterError) as caught:
        read_lora(tmp_path / "prompt", model)
    assert str(caught.value) == f"adapter '{tmp_path / 'prompt'}' holds no LoRA (method 'prompt-tuning'); give one that does."
    export_folders(adapter("llama", "prefix-tuning", template=PLAIN, window="model"), tmp_path / "prefix")
    with pytest.raises(AdapterError) as caught:
        read_lora(tmp_path / "prefix", model)
    assert str(caught.value) == f"'{tmp_path / 'prefix'}' is a PREFIX_TUNING adapter, but a LORA is needed; give the folder of one."
    with pytest.raises(FingerprintError):
        read_lora(tmp_path / "ours", tiny.frozen("qwen2"))


def test_a_quantised_base_is_named_in_the_note_and_in_the_refusal(tmp_path: Path) -> None:
    tiny.network("llama").save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    small, whole = (load(tmp_path / "model", quantize=kind, device="cpu") for kind in ("nf4", None))
    made = with_lora("llama", KINDS["plain"])
    made = replace(made, recipe=replace(made.recipe, method="qlora", quantize="nf4"), base_fingerprint=small.fingerprint, base=small.name)
    (exported,) = export_folders(made, tmp_path / "out", small)
    assert exported.note == "Load the base in nf4. Give PEFT the text '{text}\\nLabel:', tokenised with add_special_tokens=True."
    with pytest.raises(FingerprintError) as caught:
        made.check(whole.info)
    assert str(caught.value) == (
        f"the adapter was trained on '{small.name}' in nf4, but '{small.name}' is loaded without quantisation; "
        "load it with quantize='nf4', or retrain."
    )
    with pytest.raises(FingerprintError) as caught:
        replace(made, base_fingerprint=whole.fingerprint).check(small.info)
    assert str(caught.value) == (
        f"the adapter was trained on '{small.name}' without quantisation, but '{small.name}' is loaded in nf4; "
        "load it without quantize, or retrain."
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"use_dora": True}, "has use_dora True, but only LoRA without it can be imported; load it with PEFT."),
        ({"rank_pattern": {"q_proj": 2}}, "has rank_pattern {'q_proj': 2}, but only LoRA without it can be imported; load it with PEFT."),
        ({"init_lora_weights": "pissa"}, "has init_lora_weights pissa, but only LoRA without it can be imported; load it with PEFT."),
        (
            {"modules_to_save": ["lm_head"]},
            "has modules_to_save ['lm_head'], but only LoRA without it can be imported; load it with PEFT.",
        ),
    ],
)
def test_variants_of_lora_are_refused(changes: dict[str, Any], why: str, tmp_path: Path) -> None:
    in_peft(tmp_path, **changes)
    with pytest.raises(AdapterError) as caught:
        import_folder(tmp_path, tiny.frozen("llama"))
    assert str(caught.value) == f"'{tmp_path}' {why}"


def spoil(folder: Path, **changes: Any) -> None:
    """Change the config of a folder; None takes a key away."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def test_broken_folders_and_loras_of_another_base_are_refused(tmp_path: Path) -> None:
    in_peft(tmp_path)
    model, tensors = tiny.frozen("llama"), load_file(tmp_path / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"

    def refused(found: dict[str, Tensor], reader: FrozenModel = model) -> str:
        save_file(found, tmp_path / "adapter_model.safetensors")
        with pytest.raises((AdapterError, ModelError)) as caught:
            import_folder(tmp_path, reader)
        return str(caught.value)

    assert refused(tensors, tiny.frozen("llama-grouped")).startswith(
        "the LoRA's model.layers.0.self_attn.v_proj.lora_B.weight has shape [32, 4], but 'tiny-llama-grouped' needs [16, 4] for r 4;"
    )
    assert refused(tensors | {name: torch.full((4, 32), torch.nan)}) == (
        f"'{tmp_path}' has 128 of 128 numbers in {name} that are NaN or infinite; give the LoRA of a run that did not diverge."
    )
    assert refused({key: tensor for key, tensor in tensors.items() if key != name}) == (
        "the LoRA has no model.layers.0.self_attn.q_proj.lora_A.weight, where 'tiny-llama' reads one; "
        "load it on its own base model, with its own targets."
    )
    assert refused(tensors | {"base_model.model.score.weight": torch.ones(2, 2)}) == (
        f"'{tmp_path}' has trained weights that do not belong to a linear layer's LoRA, base_model.model.score.weight; load it with PEFT."
    )
    spoil(tmp_path, r=None)
    assert refused(tensors) == f"'{tmp_path}' has an adapter_config.json without r; save it again with PEFT."


def test_what_peft_cannot_hold_stays_here(tmp_path: Path) -> None:
    made = with_lora("llama", KINDS["plain"], "p-tuning", "It is {soft}{text} or not {answer}")
    with pytest.raises(AdapterError) as caught:
        export_folders(made, tmp_path / "out")
    assert str(caught.value) == (
        "the adapter's prompt comes after the beginning-of-sequence token or other text, "
        "so its export to PEFT needs a forward pass of the base model; give --model."
    )
    assert not (tmp_path / "out").exists()
