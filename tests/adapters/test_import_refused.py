"""What is no soft prompt for this model, or is broken, is refused by one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from adapters.saving import saved
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

from foreword.adapters.peft_prompt import import_peft
from foreword.errors import AdapterError, ModelError
from foreword.prompts.template import Template
from foreword.tasks.classify import Classify

# PEFT 0.21.2 itself uses a name that transformers 5 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def edited(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def with_tensors(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, folder / "adapter_model.safetensors")


def pickled(folder: Path) -> None:
    torch.save({"prompt_embeddings": torch.ones(4, 32)}, folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()


def cut(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


TABLE = torch.ones(4, 32)
BROKEN: list[tuple[str, Any, str]] = [
    (
        "type",
        lambda folder: edited(folder, peft_type="CPT"),
        "'{folder}' is a CPT adapter, but PROMPT_TUNING, P_TUNING, PREFIX_TUNING and CARTRIDGE can be imported; load it with PEFT.",
    ),
    (
        "task type",
        lambda folder: edited(folder, task_type="SEQ_2_SEQ_LM"),
        "'{folder}' has task_type SEQ_2_SEQ_LM, but prompts with CAUSAL_LM can be imported; load it with PEFT.",
    ),
    (
        "submodules",
        lambda folder: edited(folder, num_transformer_submodules=2),
        "'{folder}' has num_transformer_submodules 2, but prompts with 1 can be imported; load it with PEFT.",
    ),
    (
        "count",
        lambda folder: edited(folder, num_virtual_tokens=5),
        "'{folder}' has 4 virtual tokens, but its config says 5; save it again with PEFT.",
    ),
    (
        "head",
        lambda folder: with_tensors(folder, {"prompt_embeddings": TABLE, "base_model.score.weight": TABLE.clone()}),
        "'{folder}' has trained weights of the model itself, base_model.score.weight, which a soft prompt cannot hold; load it with PEFT.",
    ),
    (
        "key",
        lambda folder: with_tensors(folder, {"prompt": TABLE}),
        "'{folder}' has tensors prompt, but a soft prompt is one, 'prompt_embeddings'; save it again with PEFT.",
    ),
    (
        "nan",
        lambda folder: with_tensors(folder, {"prompt_embeddings": TABLE / 0}),
        "'{folder}' has 128 of 128 numbers that are NaN or infinite; give the prompt of a run that did not diverge.",
    ),
    (
        "dtype",
        lambda folder: with_tensors(folder, {"prompt_embeddings": TABLE.int()}),
        "'{folder}' holds int32 [4, 32], but a prompt is a floating-point matrix [virtual tokens, width]; give one.",
    ),
    (
        "width",
        lambda folder: with_tensors(folder, {"prompt_embeddings": torch.ones(4, 8)}),
        "'{folder}' has virtual tokens of width 8, but 'tiny-llama' needs 32; use its own base model, 'None'.",
    ),
    (
        "pickle",
        pickled,
        "'{folder}/adapter_model.bin' is a pickle, which can run code when it is read, and is never opened; "
        "save it with PEFT's safe_serialization=True.",
    ),
    (
        "no tensors",
        lambda folder: (folder / "adapter_model.safetensors").unlink(),
        "'{folder}' has no adapter_model.safetensors; copy the folder again.",
    ),
    (
        "no config",
        lambda folder: (folder / "adapter_config.json").unlink(),
        "'{folder}' has no adapter_config.json; give a folder that PEFT saved.",
    ),
    (
        "config",
        lambda folder: (folder / "adapter_config.json").write_text("{"),
        "'{folder}' has an adapter_config.json that is not a config of PEFT; copy the folder again.",
    ),
    (
        "encoder",
        lambda folder: edited(folder, peft_type="P_TUNING", encoder_reparameterization_type="GRU"),
        "'{folder}' has encoder_reparameterization_type GRU, but PEFT knows MLP and LSTM; save it again with PEFT.",
    ),
]


@pytest.mark.parametrize(("spoil", "message"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_a_folder_that_cannot_be_imported_is_refused(spoil: Any, message: str, tmp_path: Path) -> None:
    saved("prompt", "llama", tmp_path)
    spoil(tmp_path)
    with pytest.raises(AdapterError) as error:
        import_peft(tmp_path, tiny.frozen("llama"))
    assert str(error.value) == message.format(folder=tmp_path)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    saved("prompt", "llama", tmp_path)
    cut(tmp_path)
    with pytest.raises(AdapterError) as error:
        import_peft(tmp_path, tiny.frozen("llama"))
    path = tmp_path / "adapter_model.safetensors"
    assert str(error.value) == f"'{path}' cannot be read as safetensors, perhaps it is truncated; copy it again."


def test_lora_is_no_prompt(tmp_path: Path) -> None:
    get_peft_model(tiny.network("llama"), LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])).save_pretrained(tmp_path)
    with pytest.raises(AdapterError) as error:
        import_peft(tmp_path, tiny.frozen("llama"))
    assert str(error.value) == (
        f"'{tmp_path}' is a LORA adapter, but PROMPT_TUNING, P_TUNING, PREFIX_TUNING and CARTRIDGE can be imported; load it with PEFT."
    )


def test_several_adapters_in_one_folder_are_not_guessed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        saved("prompt", "llama", tmp_path, adapter_name=name)
    with pytest.raises(AdapterError) as error:
        import_peft(tmp_path, tiny.frozen("llama"))
    assert str(error.value) == f"'{tmp_path}' holds several adapters, a, b; give the folder of one."


def test_a_prefix_for_latent_attention_is_refused(tmp_path: Path) -> None:
    saved("prefix", "llama", tmp_path)
    with pytest.raises(ModelError) as error:
        import_peft(tmp_path, tiny.frozen("deepseek_v3"))
    assert str(error.value).startswith(
        "method 'prefix-tuning' puts keys and values before every layer, but DeepSeek-V3 does not support them: "
    )


def test_a_template_with_soft_tokens_in_the_text_is_refused(tmp_path: Path) -> None:
    saved("prompt", "llama", tmp_path)
    with pytest.raises(AdapterError) as error:
        import_peft(tmp_path, tiny.frozen("llama"), task=Classify(("good", "bad"), Template.parse("{text}{soft}{answer}")).to_dict())
    assert str(error.value) == (
        "template '{text}{soft}{answer}' has soft tokens inside the text, but PEFT's prompts come first; remove {soft} from it."
    )


def test_an_adapter_of_ours_needs_no_import(tmp_path: Path) -> None:
    saved("prompt", "llama", tmp_path)
    import_peft(tmp_path, tiny.frozen("llama")).save(tmp_path / "ours")
    with pytest.raises(AdapterError) as error:
        import_peft(tmp_path / "ours", tiny.frozen("llama"))
    assert str(error.value) == f"'{tmp_path / 'ours'}' is already an adapter of Foreword; use it as it is."
