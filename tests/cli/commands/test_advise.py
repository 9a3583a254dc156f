"""`foreword advise`: the page, its JSON, where a config may come from, and every mistake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cli.given import Foreword
from typer.testing import Result

SHAPE = ("--hidden", "4096", "--layers", "32", "--heads", "32", "--vocabulary", "128256")
LLAMA = {
    **{"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    **{"num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192, "tie_word_embeddings": False, "dtype": "bfloat16"},
}


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return save(tmp_path / "llama", LLAMA)


def save(folder: Path, config: object) -> Path:
    """A folder with nothing but a config."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config), "utf-8")
    return folder


def document(result: Result) -> dict[str, Any]:
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def sentence(result: Result) -> str:
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("foreword: error: ").rstrip("\n")


def test_json(foreword: Foreword, llama: Path) -> None:
    found = document(foreword("advise", "--model", llama, "--task", "classify", "--examples", "1000", "--tasks", "1000", "--json"))
    assert list(found) == ["recommended", "alternatives", "sizing", "warnings"]
    first = found["recommended"]
    assert (first["method"], first["length"], first["learning_rate"], first["steps"]) == ("prefix-tuning", 20, 0.005, 300)
    assert {"about", "reason", "source"} == set(first["reasons"][0])
    assert first["command"] == (
        f"foreword train DATA --model {llama} --task classify --method prefix-tuning --out prompts/classify --length 20 --steps 300"
    )
    assert found["sizing"]["model"] == {
        **{"name": str(llama), "family": "llama", "kind": "causal", "num_parameters": 8_030_261_248, "bytes": 16_060_522_496},
        **{"dtype": "bfloat16", "layers": 32, "positions": 8192},
    }
    sizes = {size["method"]: size for size in found["sizing"]["methods"]}
    assert list(sizes) == ["prompt-tuning", "p-tuning", "prefix-tuning", "p-tuning-v2", "lora", "qlora", "full"]
    prefix = sizes["prefix-tuning"]
    assert (prefix["num_parameters"], prefix["num_trained"], prefix["bytes"]) == (1_310_720, 33_892_864, 5_242_880)
    assert (prefix["bytes_all_tasks"], prefix["kv_bytes_per_virtual_token"], prefix["kv_bytes_per_sequence"]) == (
        5_242_880_000,
        131_072,
        2_621_440,
    )
    assert prefix["context_left"] == 8172
    memory = prefix["training_memory"]
    assert memory["total"] == sum(value for name, value in memory.items() if name != "total")
    assert found["warnings"] == []


def test_the_page(foreword: Foreword, llama: Path) -> None:
    result = foreword("advise", "--model", llama, "--tasks", "1000", "--text-tokens", "100")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert lines[0] == f"{llama}: causal, 8,030,261,248 numbers, 16.1 GB in bfloat16"
    assert lines[1].split() == ["method", "numbers", "trained", "kept", "a", "task's", "file", "all", "1,000", "tasks"]
    assert lines[2].split() == ["prompt-tuning", "81,920", "81,920", "327.7", "kB", "327.7", "MB"]
    assert lines[9:11] == [
        "",
        "Training: memory of a step of 16 × 100 tokens. Cache: keys and values in a sequence, if copied. Compute: added to reading a text.",
    ]
    assert lines[11].split() == ["method", "training", "cache", "context", "left", "compute"]
    assert lines[12].endswith("2.6 MB         8,172  +20.0 %")
    assert lines[18].split()[0] == "full" and lines[18].endswith("–         8,192   +0.0 %")
    assert lines[20] == "Try first: prefix-tuning, 20 virtual tokens, learning rate 0.005 of the RMS, 300 steps"
    assert lines[21].startswith("  because ") and lines[21].endswith("]")
    assert len([line for line in lines if line.startswith("Or: ")]) == 3
    assert lines[-2:] == [
        "Next:",
        f"  foreword train DATA --model {llama} --task classify --method prefix-tuning --out prompts/classify --length 20 --steps 300",
    ]


def test_lora_is_recommended_in_plain_words(foreword: Foreword, llama: Path) -> None:
    result = foreword("advise", "--model", llama, "--examples", "200", "--lora-r", "16")
    assert "Try first: lora, learning rate 0.0005, 300 steps" in result.stdout
    assert result.stdout.splitlines()[-1].endswith("--method lora --out prompts/classify --lora-r 16 --steps 300")
    assert result.stderr == "note: a soft prompt is not the better choice here: lora is, for the reasons given.\n"


def test_checkpointing_is_part_of_the_command(foreword: Foreword, llama: Path) -> None:
    result = foreword("advise", "--model", llama, "--tasks", "9", "--memory", "20")
    assert "prefix-tuning, 20 virtual tokens, learning rate 0.005 of the RMS, 300 steps, gradient checkpointing" in result.stdout
    assert result.stdout.splitlines()[-1].endswith("--steps 300 --gradient-checkpointing")


def test_a_shape_without_a_model(foreword: Foreword) -> None:
    given = (*SHAPE, "--kv-heads", "8", "--intermediate", "14336", "--positions", "8192", "--tasks", "3")
    found = document(foreword("advise", *given, "--json"))
    assert found["sizing"]["model"]["num_parameters"] == 8_030_261_248
    assert found["sizing"]["model"]["name"] is None and found["recommended"]["command"] is None
    page = foreword("advise", *given).stdout
    assert page.startswith("the given shape: causal, 8,030,261,248 numbers, 16.1 GB in bfloat16\n") and "Next:" not in page


def test_a_shape_says_what_it_assumes(foreword: Foreword) -> None:
    note = "the MLP's width is taken as 8/3 of the hidden width; give --intermediate or --model-parameters for exact weights."
    assert json.loads(foreword("advise", *SHAPE, "--tasks", "3", "--json").stdout)["warnings"] == [note]
    exact = document(foreword("advise", *SHAPE, "--tasks", "3", "--model-parameters", "7000000000", "--json"))
    assert exact["sizing"]["model"]["bytes"] == 14_000_000_000
    assert exact["sizing"]["methods"][-1]["num_parameters"] == 7_000_000_000


def test_a_head_dimension_of_its_own(foreword: Foreword) -> None:
    words = ("--hidden", "640", "--layers", "18", "--heads", "4", "--kv-heads", "1", "--head-dim", "256", "--vocabulary", "262144")
    methods = json.loads(foreword("advise", *words, "--json").stdout)["sizing"]["methods"]
    assert next(size for size in methods if size["method"] == "p-tuning-v2")["num_parameters"] == 184_320


def test_a_hub_id_in_the_cache(foreword: Foreword, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    cache = tmp_path / "hub"
    commit = "0123456789abcdef0123456789abcdef01234567"
    save(cache / "models--maker--llama/snapshots" / commit, LLAMA)
    (cache / "models--maker--llama/refs").mkdir()
    (cache / "models--maker--llama/refs/main").write_text(commit, "utf-8")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    assert document(foreword("advise", "--model", "maker/llama", "--tasks", "3", "--json"))["sizing"]["model"]["name"] == "maker/llama"
    missing = sentence(foreword("advise", "--model", "maker/other"))
    assert missing == (
        "model 'maker/other' is neither a folder here nor in the hub's cache on this machine; give a folder with config.json, "
        "a hub id that was downloaded before, or --hidden, --layers, --heads and --vocabulary."
    )
    shutil.rmtree(cache)


def test_the_precision_of_the_checkpoint_counts_unless_told(foreword: Foreword, tmp_path: Path) -> None:
    folder = save(tmp_path / "a", {**LLAMA, "dtype": "float32"})
    assert document(foreword("advise", "--model", folder, "--tasks", "3", "--json"))["sizing"]["model"]["dtype"] == "float32"
    told = document(foreword("advise", "--model", folder, "--tasks", "3", "--dtype", "float16", "--json"))
    assert told["sizing"]["model"]["bytes"] == 2 * 8_030_261_248


def test_families(foreword: Foreword, tmp_path: Path) -> None:
    new = json.loads(
        foreword("advise", "--model", save(tmp_path / "a", {**LLAMA, "model_type": "newcomer"}), "--tasks", "3", "--json").stdout
    )
    assert new["warnings"] == [
        "model type 'newcomer' is not supported; these are sizes only, it cannot be trained.",
        "the layers of 'newcomer' are not in Foreword's table, so its weights are estimated like Llama's; LoRA, memory and full fine-tuning may differ.",
    ]
    assert sentence(foreword("advise", "--model", save(tmp_path / "b", {"model_type": "falcon"}))) == (
        "model type 'falcon' is not supported: its attention is outside transformers' attention interface; use Llama or Mistral, or LoRA."
    )
    latent = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 12}
    sizes = json.loads(
        foreword("advise", "--model", save(tmp_path / "c", {**LLAMA, **latent, "model_type": "deepseek_v3"}), "--json").stdout
    )
    why = {size["method"]: size["excluded"] for size in sizes["sizing"]["methods"]}
    assert why["prefix-tuning"] == why["p-tuning-v2"] == "its latent attention keeps no keys and values per head"
    assert why["prompt-tuning"] is None


NO_MODEL = "no model was given, and a shape without {}; give --model, or --hidden, --layers, --heads and --vocabulary."


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), NO_MODEL.format("--hidden, --layers, --heads, --vocabulary")),
        (SHAPE[:6], NO_MODEL.format("--vocabulary")),
        (("--hidden", "100", *SHAPE[2:]), "--hidden 100 cannot be divided among --heads 32; correct one of them, or give --head-dim."),
        ((*SHAPE, "--kv-heads", "5"), "--heads 32 cannot be divided among --kv-heads 5; correct one of them."),
        ((*SHAPE, "--head-dim", "0"), "--head-dim is 0, but it must be a whole number of at least 1."),
        (("--model", "x.gguf"), "'x.gguf' is a GGUF file, which is not supported here; {instead}."),
        (
            ("--model", "x", "--layers", "3"),
            "--layers and --model were both given, but the config of the model says it; leave one of them out.",
        ),
        ((*SHAPE, "--task", "dance"), "task 'dance' is not known; choose one of {tasks}."),
        ((*SHAPE, "--examples", "0"), "examples is 0, but it must be a whole number of at least 1."),
        (
            (*SHAPE, "--lora-targets", "nose"),
            "LoRA's target 'nose' is not a matrix of this model; choose attention, all-linear, or some of {roles}.",
        ),
        (
            (*SHAPE, "--also", "dance"),
            "method 'dance' is not known; choose one of prompt-tuning, p-tuning, prefix-tuning, p-tuning-v2, lora, qlora, full, head-only, "
            "zero-shot, few-shot, or a sum like prefix-tuning+lora.",
        ),
    ],
)
def test_mistakes(foreword: Foreword, words: tuple[str, ...], said: str) -> None:
    known = {
        "instead": "give a folder with config.json, a hub id that was downloaded before, or --hidden, --layers, --heads and --vocabulary",
        "tasks": "classify, classify-head, multi-label, regress, generate, seq2seq, tag, qa, choice, probe",
        "roles": "q, k, v, o, gate, up, down",
    }
    assert sentence(foreword("advise", *words)) == said.format(**known)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{", "the config of model '{folder}' cannot be read (it is not valid JSON); {instead}."),
        ("[]", "'{folder}/config.json' is not a model config, it has no model_type; {instead}."),
        (None, "the config of model '{folder}' cannot be read (there is none); {instead}."),
        (
            {"model_type": "llama", "hidden_size": 64},
            "the config of model type 'llama' has no vocab_size; give the config of a single text transformer.",
        ),
    ],
)
def test_folders_that_hold_no_model(foreword: Foreword, tmp_path: Path, config: object, said: str) -> None:
    folder = save(tmp_path / "model", "" if config is None else config)
    if config is None:
        (folder / "config.json").unlink()
    instead = "give a folder with config.json, a hub id that was downloaded before, or --hidden, --layers, --heads and --vocabulary"
    assert sentence(foreword("advise", "--model", folder)) == said.format(folder=folder, instead=instead)


def test_a_model_that_does_not_write(foreword: Foreword, tmp_path: Path) -> None:
    bert = {
        "model_type": "bert",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 99,
        "intermediate_size": 128,
    }
    folder = save(tmp_path / "bert", {**bert, "max_position_embeddings": 512, "type_vocab_size": 2})
    said = "task 'generate' needs a model that generates text, but 'bert' is an encoder; use a causal model."
    assert sentence(foreword("advise", "--model", folder, "--task", "generate")) == said
