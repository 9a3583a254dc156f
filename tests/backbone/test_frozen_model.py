"""FrozenModel: what initialisers, tasks and adapters ask of it."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import nn

from foreword.backbone.batch import collate
from foreword.methods import recipe
from foreword.prompts.init import Material, initial_values
from foreword.prompts.soft_prompt import SoftPrompt
from foreword.prompts.template import Row
from foreword.prompts.tokens import unflatten_kv


def test_wrapping_shares_the_network_and_switches_learning_off() -> None:
    network = tiny.network("llama").train().requires_grad_(True)
    model = tiny.wrap(network, tiny.tokenizer())
    assert model.network is network
    assert not any(module.training for module in network.modules()) and not any(p.requires_grad for p in network.parameters())
    assert model.name == "LlamaForCausalLM" and tiny.frozen("llama").name == "tiny-llama"
    assert (model.device.type, model.dtype) == ("cpu", torch.float32)


def test_a_forward_pass_without_a_prompt_is_the_base_model() -> None:
    model, plain = tiny.build("llama"), tiny.network("llama")
    batch = collate([Row((1, 5, 6, 7))])
    with torch.no_grad():
        assert (model.forward(batch) - plain(batch.ids).logits).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt2", "opt"])
def test_embeddings_are_what_the_first_layer_gets(name: str) -> None:
    model = tiny.frozen(name)
    ids = [1, 5, 6, 7]
    with torch.no_grad():
        by_vectors = model.network(inputs_embeds=model.embed(ids)[None]).logits
        by_ids = model.network(torch.tensor([ids])).logits
    assert torch.equal(by_vectors, by_ids)
    assert model.embed([]).shape == (0, model.shape.embedding) and not model.embed(ids).requires_grad


def test_frequent_tokens_are_words_in_the_order_of_the_vocabulary() -> None:
    model = tiny.frozen("llama")
    found = model.frequent_tokens(5000)
    decoded = [model.tokenizer.inner.decode([index]) for index in found]
    assert found == sorted(found) and len(set(found)) == len(found) > 50
    assert all(any(c.isalpha() for c in text) for text in decoded)
    assert not set(found) & set(range(len(tiny.SPECIALS)))
    assert model.frequent_tokens(7) == found[:7] and model.frequent_tokens(0) == []


def test_a_vocabulary_smaller_than_the_tokenizers_is_respected() -> None:
    model = tiny.build("llama", vocab_size=100)
    assert max(model.frequent_tokens(5000)) < 100


@pytest.mark.parametrize("bos", [True, False])
def test_keys_and_values_are_those_of_a_text_behind_bos(bos: bool) -> None:
    """Read as a prefix behind the same BOS they give the logits of the text itself."""
    model = tiny.build("gemma3_text", bos=bos)
    text, rest = model.tokenizer.encode("a dull mess of a film"), (9, 10, 11)
    flat = model.keys_values(model.embed(text))
    width = sum(layer.width for layer in model.shape.kv)
    assert flat.shape == (len(text), width) and not flat.requires_grad
    head = [tiny.BOS] if bos else []
    if not bos:
        prefix = unflatten_kv(flat, range(model.shape.num_layers), model.shape.kv, "model")
        truth = model.forward(collate([Row((*text, *rest))]))[0, -3:]
        assert (model.forward(collate([Row(rest)]), prefix)[0] - truth).abs().max() < 1e-4
    longer = model.keys_values(model.embed([*text, 9]))
    assert (longer[: len(text)] - flat).abs().max() < 1e-5, "keys and values do not depend on what comes later"
    bare = tiny.build("gemma3_text", bos=False).keys_values(model.embed([*head, *text]))
    assert (bare[len(head) :] - flat).abs().max() < 1e-5


@pytest.mark.parametrize("method", ["prompt-tuning", "p-tuning-v2"])
def test_a_bf16_model_reads_and_teaches_an_fp32_prompt(method: str) -> None:
    model = tiny.wrap(tiny.network("llama").to(torch.bfloat16), tiny.tokenizer())
    spec = recipe(method, length=3)
    first = initial_values(spec, model, Material("Is it good?"))
    soft = SoftPrompt(spec, model.shape, first.origin, first.scale)
    at = (0,) * 3 if spec.site == "input" else ()
    batch = collate([Row((1, 5, 6), at, (-100, -100, 6), (0.0, 0.0, 1.0))])
    logits = model.predicting(batch, soft(), batch.labels >= 0)
    assert logits.dtype == torch.bfloat16
    nn.functional.cross_entropy(logits.float(), torch.tensor([6])).backward()
    (gradient,) = [p.grad for p in soft.parameters()]
    assert gradient is not None and gradient.dtype == torch.float32 and bool(gradient.abs().max() > 0)


def test_fingerprints_are_worked_out_once() -> None:
    model = tiny.build("llama")
    assert model.fingerprint is model.fingerprint and model.tokenizer_fingerprint is model.tokenizer_fingerprint
