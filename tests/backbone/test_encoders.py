"""Encoders: loading them however they were saved, and the overrides of families that transformers' interfaces leave out."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_encoders
import torch
from contract.given import distance, prompt, spec
from contract.given_encoders import stock, text
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoModelForTokenClassification, PreTrainedModel

from foreword.backbone.batch import collate
from foreword.backbone.family_overrides.model_overrides import override_modules
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.gradient_checkpointing import recomputing
from foreword.backbone.loading.load_model import load, wrap
from foreword.backbone.weights.weight_sharing import share
from foreword.errors import ModelError

POOLED = ("bert", "roberta", "xlm-roberta", "albert", "mpnet")
BRANCHED = ("albert", "deberta-v2", "deberta-v3", "mpnet")
names = pytest.mark.parametrize("name", tiny_encoders.TINY)


def with_head(name: str, kind: type) -> PreTrainedModel:
    """The tiny encoder of a name inside a network with a head."""
    made = kind.from_config(tiny_encoders.config(name)).eval()
    made.base_model.load_state_dict(tiny_encoders.network(name).state_dict(), strict=False)
    return made


def saved(folder: Path, name: str, network: PreTrainedModel | None = None) -> Path:
    (network or tiny_encoders.network(name)).save_pretrained(folder)
    tiny_encoders.tokenizer(name).save_pretrained(folder)
    return folder


def check_same(model: FrozenModel, name: str) -> None:
    first, batch = tiny_encoders.frozen(name), collate([text(name, 9), text(name, 5)])
    assert torch.equal(model.hidden(batch)[batch.mask], first.hidden(batch)[batch.mask])
    assert (model.shape, model.fingerprint) == (first.shape, first.fingerprint)
    assert model.tokenizer.pair("a joy", "dull", 20) == first.tokenizer.pair("a joy", "dull", 20)
    assert model.network is model.network.base_model, "no head"


@names
def test_a_bare_encoder_comes_back_with_its_pooler(name: str, tmp_path: Path) -> None:
    model = load(saved(tmp_path, name))
    check_same(model, name)
    assert (getattr(model.network, "pooler", None) is not None) == (tiny_encoders.TINY[name][0] in POOLED)
    assert load(tmp_path, dtype="bfloat16").fingerprint == model.fingerprint


@names
def test_a_checkpoint_with_a_language_models_head(name: str, tmp_path: Path) -> None:
    """Its keys have the family's prefix, its pooler is missing and is not made up."""
    network = with_head(name, AutoModelForMaskedLM)
    model = load(saved(tmp_path, name, network))
    check_same(model, name)
    assert getattr(model.network, "pooler", None) is None
    check_same(wrap(network, tiny_encoders.tokenizer(name)), name)


@pytest.mark.parametrize("name", ["bert", "deberta-v3", "modernbert"])
@pytest.mark.parametrize("kind", [AutoModelForSequenceClassification, AutoModelForTokenClassification])
def test_a_network_with_another_head(name: str, kind: type, tmp_path: Path) -> None:
    network = with_head(name, kind)
    check_same(load(saved(tmp_path, name, network)), name)
    check_same(wrap(network, tiny_encoders.tokenizer(name)), name)


@pytest.mark.parametrize(
    ("name", "missing", "first"),
    [
        ("bert", ["encoder.layer.1.output.dense.weight"], "encoder.layer.1.output.dense.weight"),
        ("bert", ["pooler.dense.weight", "embeddings.LayerNorm.bias"], "embeddings.LayerNorm.bias"),
        ("electra", ["embeddings_project.weight"], "embeddings_project.weight"),
    ],
)
def test_weights_are_never_made_up(name: str, missing: list[str], first: str, tmp_path: Path) -> None:
    weights = saved(tmp_path, name) / "model.safetensors"
    tensors = {key: value.clone() for key, value in load_file(weights).items() if key not in missing}
    weights.unlink()
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError) as caught:
        load(tmp_path)
    assert str(caught.value) == (
        f"model '{tmp_path}' has no weights that fit '{first}' ({len(missing)} in all) of its config; download the checkpoint and config.json again."
    )


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("bert", {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.2}),
        ("distilbert", {"dropout": 0.1, "attention_dropout": 0.2}),
        ("modernbert", {"embedding_dropout": 0.1, "mlp_dropout": 0.1, "attention_dropout": 0.2}),
    ],
)
def test_dropout_is_left_out(name: str, rates: dict[str, float], tmp_path: Path) -> None:
    model = load(saved(tmp_path, name, tiny_encoders.network(name, **rates)))
    assert [getattr(model.network.config, key) for key in rates] == [0.0] * len(rates)
    model.network.train()
    batch = collate([text(name, 7)])
    assert torch.equal(model.hidden(batch), model.hidden(batch))


@names
def test_without_a_prompt_a_branch_is_the_original(name: str) -> None:
    network = tiny_encoders.network(name)
    before, ids = dict(network.named_parameters()), torch.tensor([text(name, 9).ids])
    with torch.no_grad():
        states = network(ids).last_hidden_state
    own = override_modules(network)
    assert own == (tiny_encoders.TINY[name][0] in ("deberta-v2", "mpnet"))
    after = dict(network.named_parameters())
    assert list(after) == list(before) and all(after[key] is before[key] for key in before), "the very same weights under the same names"
    assert {type(module).__module__.startswith("foreword.") for module in network.modules()} == (
        {True, False} if name in (*BRANCHED, "albert-groups") else {False}
    )
    modules = list(network.modules())
    assert override_modules(network) == own and all(left is right for left, right in zip(modules, network.modules(), strict=True)), (
        "once is enough"
    )
    with torch.no_grad():
        assert torch.equal(network(ids).last_hidden_state, states)


@pytest.mark.parametrize("name", BRANCHED)
def test_a_second_tree_over_the_weights_reads_prompts_too(name: str) -> None:
    """As recipes that change weights make one."""
    first = tiny_encoders.frozen(name)
    second = FrozenModel(share(first.network), tiny_encoders.tokenizer(name), first.shape, "second")
    with torch.no_grad():
        read = prompt(first, spec("p-tuning-v2"))()
    batch = collate([text(name, 9)])
    assert torch.equal(first.hidden(batch, read), second.hidden(batch, read))
    assert distance(first.hidden(batch, read), first.hidden(batch)) > 0.01


@pytest.mark.parametrize("name", ["deberta-v3", "mpnet"])
def test_a_forward_pass_that_fails_leaves_no_prompt_behind(name: str) -> None:
    model = tiny_encoders.build(name)
    with torch.no_grad():
        read = prompt(model, spec("p-tuning-v2"))()
    row = text(name, 9)
    ready = model.prepare(collate([row]), read)
    with pytest.raises(IndexError):
        model.network(**{**ready.inputs, "input_ids": torch.tensor([[999] * 9])})
    with torch.no_grad():
        bare = model.network(input_ids=torch.tensor([row.ids])).last_hidden_state
        assert distance(bare, stock(name)(torch.tensor([row.ids])).last_hidden_state) < 1e-5


def test_layers_that_cannot_be_checkpointed_are_refused() -> None:
    with pytest.raises(ModelError) as caught, recomputing(tiny_encoders.network("mpnet"), "mpnet"):
        pass
    assert str(caught.value) == "model 'mpnet' has no layers that transformers can checkpoint; train without gradient checkpointing."
