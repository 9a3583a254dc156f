"""The precision of loading: a checkpoint's own, unless the processor would have to imitate it."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

import pytest
import tiny
import torch
from transformers import AutoConfig

from foreword.backbone.loading import precision
from foreword.backbone.loading.load_model import load

LACKING = (
    "model '{0}' is stored in {1}, for which this processor has no instructions: it is read in float32, in twice the memory; "
    "dtype {1} keeps it as stored, many times slower."
)


@pytest.fixture(params=["bfloat16", "float16"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A checkpoint of 16 bits, and which."""
    tiny.network("llama").to(getattr(torch, request.param)).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    return tmp_path, request.param


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """The 16-bit formats of a processor: none, until a test appends some."""
    formats: list[torch.dtype] = []
    monkeypatch.setattr(precision, "multiplies", formats.__contains__)
    return formats


def test_a_checkpoint_keeps_its_precision_where_the_processor_has_it(stored, able, caplog) -> None:
    folder, name = stored
    able.append(getattr(torch, name))
    assert load(folder, device="cpu").dtype == getattr(torch, name)
    assert not caplog.records


def test_elsewhere_it_is_read_in_float32_and_said(stored, able, caplog) -> None:
    folder, name = stored
    model = load(folder, device="cpu")
    assert model.dtype == torch.float32
    assert [(record.name, record.levelno, record.getMessage()) for record in caplog.records] == [
        ("foreword", logging.WARNING, LACKING.format(folder, name))
    ]
    assert model.fingerprint == load(folder, dtype=name, device="cpu").fingerprint, "its numbers are the same"


def test_what_is_asked_for_is_kept(stored, able, caplog) -> None:
    folder, name = stored
    assert load(folder, dtype=name, device="cpu").dtype == getattr(torch, name)
    assert load(folder, dtype="float32", device="cpu").dtype == torch.float32
    assert not caplog.records


def test_of_several_processes_one_says_it(stored, able, caplog, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert load(stored[0], device="cpu").dtype == torch.float32
    assert not caplog.records


def test_other_devices_have_their_own_instructions(stored, able) -> None:
    config = AutoConfig.from_pretrained(stored[0])
    assert precision.precision("a", "auto", config, torch.device("cuda")) == "auto"
    assert precision.precision("a", "auto", config, torch.device("cpu")) == torch.float32


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_a_quantised_model_computes_in_it_too(stored, able) -> None:
    model = load(stored[0], quantize="nf4", device="cpu")
    assert model.dtype == torch.float32 and model.network.config.quantization_config.bnb_4bit_compute_dtype == torch.float32


def test_processors_of_the_avx2_era_have_neither() -> None:
    found = precision.multiplies(torch.bfloat16), precision.multiplies(torch.float16)
    assert all(isinstance(one, bool) for one in found)
    if torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2") and not torch.cpu.get_capabilities().get("avx_ne_convert", True):
        assert found == (False, False)
