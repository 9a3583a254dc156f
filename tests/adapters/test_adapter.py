"""An adapter is read back as it was saved, or refused by one sentence."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from adapters.making import SCORES, adapter
from contract.given import distance
from safetensors.torch import load_file, save, save_file

from foreword.adapters.adapter import Adapter
from foreword.adapters.folder import CONFIG, FILES
from foreword.adapters.safetensors_file import KEY, check_finite
from foreword.backbone.batch import collate
from foreword.errors import AdapterError, FingerprintError
from foreword.methods import METHODS
from foreword.prompts.template import Row

TENSORS = "adapter_model.safetensors"
TABLE = torch.ones(4, 32)


@pytest.mark.parametrize("method", METHODS)
def test_saved_and_loaded_is_the_same(method: str, tmp_path: Path) -> None:
    model = tiny.frozen("gemma3_text")
    made = adapter("gemma3_text", method)
    assert made.save(tmp_path / "a") == tmp_path / "a"
    read = Adapter.load(tmp_path / "a")
    assert torch.equal(read.flat, made.flat)
    facts = ("recipe", "shape", "task", "base", "base_fingerprint", "tokenizer_fingerprint", "scores", "provenance")
    assert {name: getattr(read, name) for name in facts} == {name: getattr(made, name) for name in facts}
    row = Row((1, 40, 41, 42, 43, 44, 45, 46), (0,) * 4 if made.spec.site == "input" else ())
    before, after = (model.forward(collate([row]), each.tokens()) for each in (made, read))
    assert distance(before, after) == 0.0
    read.check(model.info)


def test_an_adapter_is_three_files(tmp_path: Path) -> None:
    made = adapter()
    made.save(tmp_path / "a")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(FILES)
    assert (tmp_path / "a" / TENSORS).read_bytes() == save({"prompt_embeddings": made.flat}, metadata={"format": "pt"})
    manifest = json.loads((tmp_path / "a" / "foreword.json").read_text())
    assert list(manifest)[:2] == ["format_version", "recipe"]
    assert manifest["format_version"] == 2
    assert manifest["sha256"] == hashlib.sha256((tmp_path / "a" / TENSORS).read_bytes()).hexdigest()
    assert manifest["size"] == (tmp_path / "a" / TENSORS).stat().st_size


def test_an_adapter_is_refused_where_one_is(tmp_path: Path) -> None:
    first, second = adapter(seed=1), adapter(seed=2)
    first.save(tmp_path / "a")
    with pytest.raises(AdapterError) as error:
        second.save(tmp_path / "a")
    assert str(error.value) == (
        f"'{tmp_path / 'a'}' already holds an adapter; choose another name, or give --force (overwrite=True) to replace it."
    )
    assert torch.equal(Adapter.load(tmp_path / "a").flat, first.flat)
    second.save(tmp_path / "a", overwrite=True)
    assert torch.equal(Adapter.load(tmp_path / "a").flat, second.flat)


def test_another_base_is_refused_with_both_fingerprints() -> None:
    made, other = adapter(), tiny.build("llama", initializer_range=0.3)
    with pytest.raises(FingerprintError) as error:
        made.check(other.info)
    assert str(error.value) == (
        f"the adapter was trained on 'tiny-llama' with base model fingerprint {made.base_fingerprint}, "
        f"but that of 'tiny-llama' is {other.fingerprint}; load the same version of 'tiny-llama', or retrain."
    )


def test_another_tokenizer_is_refused_with_both_fingerprints() -> None:
    made, other = adapter(), tiny.build("llama", bos=False)
    assert made.base_fingerprint == other.fingerprint
    with pytest.raises(FingerprintError) as error:
        made.check(other.info)
    assert str(error.value) == (
        f"the adapter was trained on 'tiny-llama' with tokenizer fingerprint {made.tokenizer_fingerprint}, "
        f"but that of 'tiny-llama' is {other.tokenizer_fingerprint}; load the same version of 'tiny-llama', or retrain."
    )


def test_a_prompt_of_another_shape_is_refused() -> None:
    with pytest.raises(AdapterError) as error:
        adapter(tensors={KEY: torch.ones(4, 31)})
    assert str(error.value) == "the prompt has shape [4, 31], but its spec and base model need [4, 32]; make them agree."


def test_a_prompt_that_diverged_is_not_saved(tmp_path: Path) -> None:
    flat = TABLE.clone()
    flat[1, 2], flat[3, 4] = math.nan, -math.inf
    with pytest.raises(AdapterError) as error:
        adapter(tensors={KEY: flat}).save(tmp_path / "a")
    assert str(error.value) == (
        f"adapter '{tmp_path / 'a'}' has 2 of 128 numbers that are NaN or infinite; retrain it with a lower learning rate."
    )
    assert not (tmp_path / "a").exists()


def test_what_json_cannot_hold_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(AdapterError) as error:
        adapter(provenance={"when": tmp_path}).save(tmp_path / "a")
    assert str(error.value) == (
        "an adapter's task or provenance cannot be saved as JSON (Object of type PosixPath is not JSON serializable); "
        "give plain text, numbers, lists and mappings."
    )


def test_a_score_that_is_no_number_stays_one(tmp_path: Path) -> None:
    adapter(scores={"perplexity": {"value": math.inf, "stderr": math.nan, "n": 3}}).save(tmp_path / "a")
    read = Adapter.load(tmp_path / "a").scores["perplexity"]
    assert math.isnan(read["value"]) and math.isnan(read["stderr"]) and read["n"] == 3
    assert adapter().scores == SCORES


def test_the_largest_numbers_are_finite(tmp_path: Path) -> None:
    made = adapter(tensors={KEY: torch.full((4, 32), torch.finfo(torch.float32).max)})
    made.save(tmp_path / "a")
    assert torch.equal(Adapter.load(tmp_path / "a").flat, made.flat)


@pytest.mark.parametrize(("dtype", "name"), [(torch.float32, "F32"), (torch.bfloat16, "BF16"), (torch.float16, "F16")], ids=str)
def test_numbers_that_are_not_finite_are_counted_in_every_precision(dtype: torch.dtype, name: str) -> None:
    limits = torch.finfo(dtype)
    numbers = torch.tensor([0.0, -0.0, 1.0, limits.max, limits.min, limits.tiny, math.inf, -math.inf, math.nan])
    data = numbers.to(dtype).view(torch.uint8).numpy().tobytes()
    check_finite(data[: 6 * dtype.itemsize], "a", name)
    check_finite(b"", "a", name)
    with pytest.raises(AdapterError) as error:
        check_finite(data, "a", name)
    assert str(error.value) == "adapter 'a' has 3 of 9 numbers that are NaN or infinite; retrain it with a lower learning rate."


def resigned(folder: Path, data: bytes) -> None:
    """Other bytes for the tensors, with a manifest that vouches for them, so that the checks behind the digest are reached."""
    (folder / TENSORS).write_bytes(data)
    manifest = json.loads((folder / "foreword.json").read_text())
    manifest |= {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    (folder / "foreword.json").write_text(json.dumps(manifest))


def header(text: str, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text.encode() + data


def flipped(folder: Path) -> None:
    data = bytearray((folder / TENSORS).read_bytes())
    data[-1] ^= 1
    (folder / TENSORS).write_bytes(data)


def entry(**changes: Any) -> str:
    return json.dumps({"prompt_embeddings": {"dtype": "F32", "shape": [4, 32], "data_offsets": [0, 512]} | changes})


BROKEN: list[tuple[str, Callable[[Path], Any], str]] = [
    (
        "cut config",
        lambda folder: (folder / CONFIG).write_bytes((folder / CONFIG).read_bytes()[:100]),
        "adapter '{folder}' has an adapter_config.json that is not a config of PEFT, perhaps truncated; copy the adapter again or retrain.",
    ),
    (
        "config of another kind",
        lambda folder: (folder / CONFIG).write_text("[1]"),
        "adapter '{folder}' has an adapter_config.json that is not a config of PEFT, perhaps truncated; copy the adapter again or retrain.",
    ),
    (
        "cut",
        lambda folder: (folder / TENSORS).write_bytes((folder / TENSORS).read_bytes()[:-3]),
        "adapter '{folder}' has 629 bytes in adapter_model.safetensors, but 632 were saved; copy it again or retrain.",
    ),
    (
        "flipped",
        flipped,
        "adapter '{folder}' has adapter_model.safetensors with sha256 {found}…, but {saved}… was saved; copy it again or retrain.",
    ),
    (
        "missing",
        lambda folder: (folder / TENSORS).unlink(),
        "adapter '{folder}' has no adapter_model.safetensors; copy it again or retrain.",
    ),
    (
        "pickle",
        lambda folder: (folder / TENSORS).rename(folder / "adapter_model.bin"),
        "adapter '{folder}' has adapter_model.bin, a pickle, which can run code when it is read, and is never opened; save it as safetensors.",
    ),
    (
        "hidden pickle",
        lambda folder: (torch.save({"prompt_embeddings": TABLE}, folder / TENSORS), resigned(folder, (folder / TENSORS).read_bytes())),
        "adapter '{folder}' has a broken adapter_model.safetensors (header too large); copy it again or retrain.",
    ),
    (
        "nan",
        lambda folder: resigned(folder, save({"prompt_embeddings": TABLE / 0})),
        "adapter '{folder}' has 128 of 128 numbers that are NaN or infinite; retrain it with a lower learning rate.",
    ),
    (
        "extra",
        lambda folder: resigned(folder, save({"prompt_embeddings": TABLE, "more": TABLE.clone()})),
        "adapter '{folder}' has tensors 'more', 'prompt_embeddings' in adapter_model.safetensors, but there must be 'prompt_embeddings'; "
        "save it again or retrain.",
    ),
    (
        "other",
        lambda folder: resigned(folder, save({"weights": TABLE})),
        "adapter '{folder}' has tensors 'weights' in adapter_model.safetensors, but there must be 'prompt_embeddings'; save it again or retrain.",
    ),
    (
        "shape",
        lambda folder: resigned(folder, save({"prompt_embeddings": TABLE.T.contiguous()})),
        "adapter '{folder}' has 'prompt_embeddings' as F32 [32, 4], but its manifest says F32 [4, 32]; save it again or retrain.",
    ),
    (
        "dtype",
        lambda folder: resigned(folder, save({"prompt_embeddings": TABLE.half()})),
        "adapter '{folder}' has 'prompt_embeddings' as F16 [4, 32], but its manifest says F32 [4, 32]; save it again or retrain.",
    ),
    (
        "empty",
        lambda folder: resigned(folder, b""),
        "adapter '{folder}' has a broken adapter_model.safetensors (header too small); copy it again or retrain.",
    ),
    (
        "no json",
        lambda folder: resigned(folder, header("{]")),
        "adapter '{folder}' has a broken adapter_model.safetensors (invalid JSON in header: key must be a string at line 1 column 2); copy it again or retrain.",
    ),
    (
        "negative",
        lambda folder: resigned(folder, header(entry().replace("[0,", "[-512,"), b"\0" * 512)),
        "adapter '{folder}' has a broken adapter_model.safetensors (invalid JSON in header: invalid value: integer `-512`, expected usize "
        "at line 1 column 86); copy it again or retrain.",
    ),
    (
        "too few bytes",
        lambda folder: resigned(folder, header(entry(), b"\0" * 511)),
        "adapter '{folder}' has a broken adapter_model.safetensors (incomplete metadata, file not fully covered); copy it again or retrain.",
    ),
    (
        "overlap",
        lambda folder: resigned(folder, header(entry().replace("[4, 32]", "[4, 31]"), b"\0" * 512)),
        "adapter '{folder}' has a broken adapter_model.safetensors (invalid shape, data type, or offset for tensor); copy it again or retrain.",
    ),
]


@pytest.mark.parametrize(("spoil", "message"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_a_broken_adapter_is_refused(spoil: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    folder = adapter().save(tmp_path / "a")
    saved = hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()[:16]
    spoil(folder)
    data = (folder / TENSORS).read_bytes() if (folder / TENSORS).exists() else b""
    with pytest.raises(AdapterError) as error:
        Adapter.load(folder)
    found = hashlib.sha256(data).hexdigest()[:16]
    assert str(error.value) == message.format(folder=folder, saved=saved, found=found)


def test_any_single_cut_of_any_file_is_refused(tmp_path: Path) -> None:
    folder = adapter().save(tmp_path / "a")
    for name in FILES:
        data = (folder / name).read_bytes()
        for end in range(0, len(data) - 1, 7):  # a manifest without its last line break is still whole
            (folder / name).write_bytes(data[:end])
            with pytest.raises(AdapterError):
                Adapter.load(folder)
        (folder / name).write_bytes(data)
    Adapter.load(folder)


def test_other_files_in_the_folder_do_not_matter(tmp_path: Path) -> None:
    folder = adapter().save(tmp_path / "a")
    (folder / "README.md").write_text("# mine")
    save_file({"x": TABLE}, folder / "other.safetensors")
    assert torch.equal(Adapter.load(folder).flat, load_file(folder / TENSORS)["prompt_embeddings"])


def test_numbers_are_kept_in_fp32_on_the_cpu() -> None:
    made = adapter(tensors={KEY: TABLE.to(torch.bfloat16).requires_grad_()})
    assert (made.flat.dtype, made.flat.device.type, made.flat.requires_grad) == (torch.float32, "cpu", False)
