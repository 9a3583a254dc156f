"""Initialisers: each kind at both sites, and the scale that learning rates are relative to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch
from torch import Tensor

from foreword.backbone.frozen_model import FrozenModel
from foreword.errors import UsageError
from foreword.methods import recipe
from foreword.prompts.init import NUM_FREQUENT, InitialValues, Material, initial_values
from foreword.specs import Init, Layers, PromptSpec

MODEL = tiny.frozen("gemma3_text")
MATERIAL = Material("Is it good?", ("positive", "negative"), ("a joy to watch", "a dull mess", "It was great"))
NOTHING = Material()
P = 9
METHOD = {"input": "prompt-tuning", "kv": "p-tuning-v2"}


def spec(site: str, kind: str = "default", *, length: int = P, layers: Layers = "all", **options: object) -> PromptSpec:
    return replace(recipe(METHOD[site], length=length, layers=layers), init=Init(kind, **options))  # type: ignore[arg-type]


def begin(site: str, kind: str = "default", material: Material = MATERIAL, *, seed: int = 0, **options: object) -> InitialValues:
    return initial_values(spec(site, kind, **options), MODEL, material, seed=seed)  # type: ignore[arg-type]


def embedded(model: FrozenModel, ids: list[int]) -> Tensor:
    return model.embed(ids).float()


def repeated(text: str, length: int = P) -> list[int]:
    ids = MODEL.tokenizer.encode(text)
    return (ids * length)[:length]


def rms(values: Tensor) -> float:
    return values.square().mean().sqrt().item()


TABLE = embedded(MODEL, MODEL.frequent_tokens(NUM_FREQUENT))


@pytest.mark.parametrize("site", ["input", "kv"])
@pytest.mark.parametrize("kind", ["default", "random", "uniform", "vocabulary", "text", "labels", "mean"])
def test_every_kind_gives_numbers_of_the_right_shape(kind: str, site: str) -> None:
    first = begin(site, kind)
    width = spec(site).width(MODEL.shape)
    assert first.origin.shape == (P, width) and first.scale.shape == (width,)
    assert first.origin.dtype == first.scale.dtype == torch.float32
    assert bool(first.origin.isfinite().all()) and bool((first.scale > 0).all())
    assert not first.origin.requires_grad
    if kind in ("random", "uniform", "vocabulary", "labels"):
        assert len({tuple(row.tolist()) for row in first.origin}) == P
    assert torch.equal(first.origin, begin(site, kind).origin), "the same seed gives the same numbers"


@pytest.mark.parametrize("site", ["input", "kv"])
@pytest.mark.parametrize("kind", ["random", "uniform", "vocabulary"])
def test_another_seed_gives_other_numbers(kind: str, site: str) -> None:
    assert not torch.equal(begin(site, kind).origin, begin(site, kind, seed=1).origin)


@pytest.mark.parametrize("site", ["input", "kv"])
@pytest.mark.parametrize(("kind", "peak"), [("random", None), ("uniform", 3**0.5)])
def test_noise_is_as_loud_as_the_models_own_numbers(kind: str, peak: float | None, site: str) -> None:
    first = begin(site, kind, length=500)
    relative = first.origin / first.scale
    assert rms(relative) == pytest.approx(1.0, abs=0.05)
    assert relative.mean().item() == pytest.approx(0.0, abs=0.05)
    if peak is not None:
        assert relative.abs().max().item() == pytest.approx(peak, rel=0.01)
    assert rms(begin(site, kind, length=500, scale=0.1).origin / first.scale) == pytest.approx(0.1, abs=0.01)


def test_vocabulary_is_a_sample_without_replacement() -> None:
    rows = begin("input", "vocabulary", length=50).origin
    hits = (rows[:, None] == TABLE[None]).all(2)
    assert hits.any(1).all() and len(set(hits.int().argmax(1).tolist())) == 50


def test_vocabulary_repeats_only_when_there_is_no_more() -> None:
    rows = begin("input", "vocabulary", length=2 * len(TABLE) + 1).origin
    assert len({tuple(row.tolist()) for row in rows}) == len(TABLE)


@pytest.mark.parametrize("length", [2, P, 40])
def test_text_is_repeated_or_cut(length: int) -> None:
    assert torch.equal(begin("input", "text", length=length).origin, embedded(MODEL, repeated(MATERIAL.text, length)))
    given = begin("input", "text", length=length, text="a joy")
    assert torch.equal(given.origin, embedded(MODEL, repeated("a joy", length))), "the spec's own text goes before the task's"


def test_special_tokens_never_take_part_in_a_text() -> None:
    rows = begin("input", "text", text="<bos>a joy<eos>").origin
    for special in (tiny.BOS, tiny.EOS, tiny.PAD):
        assert not bool((rows == embedded(MODEL, [special])).all(1).any())


def test_labels_are_means_of_their_pieces_and_vocabulary() -> None:
    rows = begin("input", "labels").origin
    for row, label in zip(rows, MATERIAL.labels, strict=False):
        assert torch.allclose(row, embedded(MODEL, MODEL.tokenizer.encode(label)).mean(0))
    assert bool((rows[2:, None] == TABLE[None]).all(2).any(1).all())
    assert torch.equal(begin("input", "labels", length=1).origin, rows[:1])


def test_means_of_the_training_texts() -> None:
    texts = [MODEL.tokenizer.encode(text) for text in MATERIAL.texts]
    rows = begin("input", "mean", length=2).origin
    assert torch.allclose(rows[0], embedded(MODEL, texts[0] + texts[2]).mean(0))
    assert torch.allclose(rows[1], embedded(MODEL, texts[1]).mean(0))
    assert torch.allclose(begin("input", "mean", length=5).origin[4], embedded(MODEL, texts[1] * 1).mean(0))


def test_empty_texts_and_labels_do_not_poison_the_start() -> None:
    gaps = Material("", ("positive", ""), ("a joy to watch", "", "a dull mess"))
    for kind in ("mean", "labels"):
        assert bool(begin("input", kind, gaps).origin.isfinite().all())


@pytest.mark.parametrize(("kind", "layers"), [("text", "all"), ("kv_of_text", "all"), ("text", "last:1"), ("text", (0, 2))])
def test_text_at_the_kv_site_is_real_keys_and_values(kind: str, layers: Layers) -> None:
    first = begin("kv", kind, layers=layers)
    every = MODEL.keys_values(embedded(MODEL, repeated(MATERIAL.text, P - 1)), opening=True)
    parts = every.split([layer.width for layer in MODEL.shape.kv], dim=1)
    chosen = spec("kv", layers=layers).chosen_layers(MODEL.shape)
    assert (first.origin - torch.cat([parts[i] for i in chosen], 1)).abs().max() < 1e-5


def test_keys_and_values_begin_with_the_token_that_opens_a_text() -> None:
    opened = MODEL.keys_values(embedded(MODEL, repeated(MATERIAL.text, P - 1)), opening=True)
    bare = tiny.wrap(MODEL.network, tiny.tokenizer(bos=False)).keys_values(embedded(MODEL, [tiny.BOS]))
    assert (begin("kv", "text").origin[0] - bare[0]).abs().max() < 1e-5
    assert torch.equal(opened[1:], MODEL.keys_values(embedded(MODEL, repeated(MATERIAL.text, P - 1))))


def test_a_lone_virtual_token_is_a_words() -> None:
    assert torch.equal(begin("kv", "text", length=1).origin, MODEL.keys_values(embedded(MODEL, repeated(MATERIAL.text, 1))))


def test_the_scale_of_embeddings_is_their_rms() -> None:
    scale = begin("input").scale
    assert scale.unique().numel() == 1 and scale[0].item() == pytest.approx(rms(TABLE))


@pytest.mark.parametrize("layers", ["all", "last:1", (0, 2)])
def test_the_scale_of_keys_and_values_is_the_rms_of_their_middle_channel_per_layer(layers: Layers) -> None:
    ids = [i for text in MATERIAL.texts for i in MODEL.tokenizer.encode(text)]
    parts = MODEL.keys_values(embedded(MODEL, ids)).split([layer.width for layer in MODEL.shape.kv], dim=1)
    expected = []
    for index in spec("kv", layers=layers).chosen_layers(MODEL.shape):
        for side in parts[index].chunk(2, 1):
            expected += [sorted(rms(channel) for channel in side.T)[(side.shape[1] - 1) // 2]] * side.shape[1]
    assert torch.allclose(begin("kv", layers=layers).scale, torch.tensor(expected))
    assert len(set(begin("kv", "random", NOTHING, layers=layers).scale.tolist())) == 2 * len(
        spec("kv", layers=layers).chosen_layers(MODEL.shape)
    )


@pytest.mark.parametrize(
    ("material", "kind"),
    [(MATERIAL, "text"), (Material(labels=("yes", "no")), "labels"), (Material(texts=("a joy",)), "vocabulary"), (NOTHING, "vocabulary")],
)
def test_what_default_means(material: Material, kind: str) -> None:
    assert torch.equal(begin("input", "default", material).origin, begin("input", kind, material).origin)


@pytest.mark.parametrize("site", ["input", "kv"])
def test_given_numbers_are_taken_as_they_are(site: str) -> None:
    made = spec(site, "file", path="x.safetensors")
    given = torch.randn(P, made.width(MODEL.shape), dtype=torch.float64)
    first = initial_values(made, MODEL, MATERIAL, given=given)
    assert torch.equal(first.origin, given.float()) and first.origin.dtype == torch.float32
    assert torch.equal(first.scale, begin(site).scale)


def test_given_numbers_of_another_shape_are_refused() -> None:
    for shape in ((7, 32), (P, 31)):
        with pytest.raises(UsageError) as caught:
            initial_values(spec("input", "adapter", path="x"), MODEL, MATERIAL, given=torch.zeros(*shape))
        assert str(caught.value) == (
            f"initialiser 'adapter' has shape {list(shape)}, but this prompt has [9, 32]; "
            f"set num_virtual_tokens to {shape[0]}, or use a prompt for the same model, site and layers."
        )


@pytest.mark.parametrize(
    ("site", "kind", "message"),
    [
        ("input", "kv_of_text", "initialiser 'kv_of_text' gives keys and values, but the input site needs embeddings; use 'text'."),
        (
            "kv",
            "text",
            "initialiser 'text' needs a text; give one, for example --init-text 'Is this review positive or negative?'.",
        ),
        ("input", "labels", "initialiser 'labels' needs class labels, but this task has none; use 'text' or 'vocabulary'."),
        ("kv", "mean", "initialiser 'mean' needs training texts; use 'text' or 'vocabulary'."),
    ],
)
def test_a_kind_without_its_source_is_refused(site: str, kind: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        begin(site, kind, NOTHING)
    assert str(caught.value) == message


def test_a_model_that_projects_its_embeddings() -> None:
    model = tiny.frozen("opt")
    first = initial_values(recipe("prompt-tuning", length=4), model, MATERIAL)
    assert first.origin.shape == (4, 16) and model.shape.hidden == 32
    assert torch.equal(first.origin, embedded(model, model.tokenizer.encode(MATERIAL.text)[:4]))
    assert initial_values(recipe("p-tuning-v2", length=4), model, MATERIAL).origin.shape == (4, 2 * 2 * 32)
