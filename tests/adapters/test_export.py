"""Our export, read by real PEFT, gives our logits; what PEFT cannot say is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
from adapters.making import adapter
from contract.given import TOLERANCE, distance
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from foreword.adapters.adapter import Adapter
from foreword.adapters.peft_prompt import export_peft, import_peft
from foreword.backbone.batch import collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.errors import AdapterError, FingerprintError
from foreword.prompts.template import Template

# PEFT 0.21.2 itself uses a name that transformers 5 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

FAMILIES = tuple(name for name in tiny.TINY if name != "deepseek_v3")
SHORT, LONG = "a joy", "a joy to watch and a dull mess of a film that goes on and on"  # LONG is longer than any window


def peft_logits(name: str, folder: Path, ids: list[int], count: int) -> Tensor:
    """The last `count` logits of real PEFT over a model that Foreword never touched."""
    model = PeftModel.from_pretrained(tiny.network(name), folder).eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long)).logits[0]
    return logits[-count:]


def our_logits(made: Adapter, model: FrozenModel, text: str) -> tuple[Tensor, list[int]]:
    """Our logits for the adapter's own template, and the row's token ids."""
    made.check(model.info)
    soft = made.spec.length if made.spec.site == "input" else 0
    row = Template.parse(made.task["template"], bos=made.task["bos"]).render({"text": text}, model.tokenizer, soft)
    return model.forward(collate([row]), made.tokens())[0], list(row.ids)


def fed(model: FrozenModel, text: str, note: str) -> list[int]:
    """Token ids as an export's note tells the user to make them for PEFT."""
    shown = note.removeprefix("Give PEFT the text '").split("', tokenised")[0].encode().decode("unicode_escape")
    special = note.endswith("add_special_tokens=True.")
    return model.tokenizer.inner(shown.replace("{text}", text), add_special_tokens=special)["input_ids"]


@pytest.mark.parity
@pytest.mark.parametrize("text", [SHORT, LONG])
@pytest.mark.parametrize("name", ["deepseek_v3", *FAMILIES])
@pytest.mark.parametrize(
    ("method", "peft_type"),
    [("prompt-tuning", "PROMPT_TUNING"), ("p-tuning", "P_TUNING")],
)
def test_peft_gives_our_logits_where_it_has_the_type(name: str, method: str, peft_type: str, text: str, tmp_path: Path) -> None:
    check_export(name, adapter(name, method, template="{soft}{bos}{text}\nLabel: {answer}"), peft_type, text, tmp_path / "out")


@pytest.mark.parity
@pytest.mark.parametrize("text", [SHORT, LONG])
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("method", "template", "peft_type"),
    [
        ("prompt-tuning", "{soft}{text}\nLabel: {answer}", "PREFIX_TUNING"),
        ("p-tuning", "Is it good? {soft:3} It is {soft}{text} or not {answer}", "PREFIX_TUNING"),
        ("prefix-tuning", "{text}\nLabel: {answer}", "PREFIX_TUNING"),
        ("p-tuning-v2", "{text}\nLabel: {answer}", "PREFIX_TUNING"),
    ],
)
def test_peft_gives_our_logits(name: str, method: str, template: str, peft_type: str, text: str, tmp_path: Path) -> None:
    check_export(name, adapter(name, method, template=template, window="model"), peft_type, text, tmp_path / "out")


def check_export(name: str, made: Adapter, peft_type: str, text: str, target: Path, asked: str | None = None) -> None:
    """Export, feed PEFT what the note says, compare."""
    model = tiny.frozen(name)
    exported = export_peft(made, target, model, peft_type=asked)
    assert exported.peft_type == peft_type
    ids = fed(model, text, exported.note)
    ours, row = our_logits(made, model, text)
    assert row[-len(ids) :] == ids
    assert distance(peft_logits(name, exported.path, ids, len(ids)), ours[-len(ids) :]) < TOLERANCE


@pytest.mark.parity
def test_a_tokenizer_without_bos_needs_no_compiling(tmp_path: Path) -> None:
    model = tiny.build("gpt2", bos=False)
    made = adapter("gpt2", model=model)
    exported = export_peft(made, tmp_path / "out", model)
    assert exported.peft_type == "PROMPT_TUNING"
    ours, row = our_logits(made, model, LONG)
    assert row == model.tokenizer.inner(f"{LONG}\nLabel:")["input_ids"]
    assert distance(peft_logits("gpt2", exported.path, row, len(row)), ours) < TOLERANCE


@pytest.mark.parity
def test_a_template_without_bos_is_exact(tmp_path: Path) -> None:
    model = tiny.frozen("llama")
    made = adapter(template="{soft}{text}\nLabel: {answer}", bos=False)
    exported = export_peft(made, tmp_path / "out")
    assert exported.peft_type == "PROMPT_TUNING"
    assert exported.note == "Give PEFT the text '{text}\\nLabel:', tokenised with add_special_tokens=False."
    ours, row = our_logits(made, model, LONG)
    assert distance(peft_logits("llama", exported.path, row, len(row)), ours) < TOLERANCE


@pytest.mark.parity
@pytest.mark.parametrize("text", [SHORT, LONG])
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("method", ["prompt-tuning", "prefix-tuning"])
def test_peft_gives_our_logits_from_a_cartridge(name: str, method: str, text: str, tmp_path: Path) -> None:
    made = adapter(name, method, template="{soft}{text}\nLabel: {answer}", window="model")
    check_export(name, made, "CARTRIDGE", text, tmp_path / "out", asked="CARTRIDGE")


@pytest.mark.parity
def test_a_cartridge_there_and_back_has_the_same_bits(tmp_path: Path) -> None:
    model, made = tiny.frozen("qwen3"), adapter("qwen3", "p-tuning-v2", template="{text}{answer}")
    first = export_peft(made, tmp_path / "first", peft_type="CARTRIDGE")
    back = import_peft(first.path, model)
    assert back.provenance["imported"]["num_frozen_tokens"] == 0
    again = export_peft(back, tmp_path / "second", peft_type="CARTRIDGE")
    assert torch.equal(back.flat, made.flat)
    assert (again.path / "adapter_model.safetensors").read_bytes() == (first.path / "adapter_model.safetensors").read_bytes()


@pytest.mark.parity
@pytest.mark.parametrize(
    ("method", "template"),
    [("prompt-tuning", "{soft}{bos}{text} {answer}"), ("prefix-tuning", "{text} {answer}")],
)
def test_an_adapter_folder_is_a_peft_folder_where_peft_is_right(method: str, template: str, tmp_path: Path) -> None:
    model = tiny.frozen("llama")
    made = adapter(method=method, template=template)
    made.save(tmp_path / "a")
    ours, row = our_logits(made, model, LONG)
    assert distance(peft_logits("llama", tmp_path / "a", row, len(row)), ours) < TOLERANCE


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "method", "template"),
    [
        ("llama", "prompt-tuning", "{soft}{text} {answer}"),
        ("llama", "p-tuning", "{text}{soft}{answer}"),
        ("gemma3_text", "prefix-tuning", "{text} {answer}"),
    ],
    ids=["behind BOS", "inside", "pinned on sliding windows"],
)
def test_peft_stops_at_an_adapter_it_would_read_wrongly(name: str, method: str, template: str, tmp_path: Path) -> None:
    adapter(name, method, template=template).save(tmp_path / "a")
    assert json.loads((tmp_path / "a" / "adapter_config.json").read_text())["peft_type"] == "FOREWORD"
    with pytest.raises(KeyError) as error:
        PeftModel.from_pretrained(tiny.network(name), tmp_path / "a")
    assert error.value.args == ("FOREWORD",)


REFUSED = [
    (
        {"template": "{text}{soft}{answer}"},
        "its template '{text}{soft}{answer}' has soft tokens inside the text, where PEFT cannot put them; train with {soft} first",
    ),
    (
        {"template": "{soft:2}{text}{soft}{answer}"},
        "its template '{soft:2}{text}{soft}{answer}' has soft tokens inside the text, where PEFT cannot put them; train with {soft} first",
    ),
    (
        {"method": "p-tuning-v2", "layers": "last:1"},
        "it has a prefix in layers [1] of 2, but PEFT has one in every layer; train with layers 'all'",
    ),
    (
        {"method": "prefix-tuning", "name": "mistral"},
        "its prefix stays visible in the sliding windows of mistral, but PEFT's does not; train with window 'model'",
    ),
]


@pytest.mark.parametrize(("how", "why"), REFUSED, ids=["suffix", "both ends", "layers", "pinned"])
def test_what_peft_cannot_say_is_refused(how: dict[str, str], why: str, tmp_path: Path) -> None:
    made = adapter(**how)  # type: ignore[arg-type]
    with pytest.raises(AdapterError) as error:
        export_peft(made, tmp_path / "out", tiny.frozen(how.get("name", "llama")))
    assert str(error.value) == f"the adapter cannot be exported to PEFT, because {why}."
    assert not (tmp_path / "out").exists()


def test_an_export_that_needs_the_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(AdapterError) as error:
        export_peft(adapter(), tmp_path / "out")
    assert str(error.value) == (
        "the adapter's prompt comes after the beginning-of-sequence token or other text, "
        "so its export to PEFT needs a forward pass of the base model; give --model."
    )


def test_an_export_on_another_model_is_refused(tmp_path: Path) -> None:
    made, other = adapter(), tiny.frozen("qwen2")
    with pytest.raises(FingerprintError) as error:
        export_peft(made, tmp_path / "out", other)
    assert str(error.value) == (
        f"the adapter was trained on 'tiny-llama' with base model fingerprint {made.base_fingerprint}, "
        f"but that of 'tiny-qwen2' is {other.fingerprint}; load the same version of 'tiny-llama', or retrain."
    )


def test_a_prompt_is_no_cartridge(tmp_path: Path) -> None:
    with pytest.raises(AdapterError) as error:
        export_peft(adapter(bos=False), tmp_path / "out", peft_type="CARTRIDGE")
    assert str(error.value) == "the adapter cannot be exported as CARTRIDGE, because it is a PROMPT_TUNING; leave the type out."


def test_an_export_never_replaces_an_adapter(tmp_path: Path) -> None:
    made = adapter(bos=False)
    made.save(tmp_path / "a")
    with pytest.raises(AdapterError) as error:
        export_peft(made, tmp_path / "a", overwrite=True)
    assert str(error.value) == f"'{tmp_path / 'a'}' holds a Foreword adapter, which would be lost; choose another folder."
    export_peft(made, tmp_path / "b")
    with pytest.raises(AdapterError) as error:
        export_peft(made, tmp_path / "b")
    assert str(error.value) == (
        f"'{tmp_path / 'b'}' already holds an adapter; choose another name, or give --force (overwrite=True) to replace it."
    )
    export_peft(made, tmp_path / "b", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("method", ["prompt-tuning", "p-tuning", "prefix-tuning", "p-tuning-v2"])
def test_import_after_export_has_the_same_bits(method: str, tmp_path: Path) -> None:
    model = tiny.frozen("qwen3")
    made = adapter("qwen3", method, template="{soft}{bos}{text}{answer}")
    first = export_peft(made, tmp_path / "first", model)
    again = export_peft(import_peft(first.path, model), tmp_path / "second", model)
    assert again.peft_type == first.peft_type
    assert torch.equal(load_file(first.path / "adapter_model.safetensors")["prompt_embeddings"], made.flat)
    assert (again.path / "adapter_model.safetensors").read_bytes() == (first.path / "adapter_model.safetensors").read_bytes()
