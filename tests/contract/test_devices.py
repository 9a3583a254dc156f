"""On a GPU everything answers as on the CPU. The GPU is a pretended one (`pretended_device`), and a real one where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from contract.devices import DEVICES, entered, on
from contract.given import prompt, spec
from contract.laws import kind_of
from contract.triples import HEADED, JOBS, NAMES, RECIPES, near, supported, why_not

from foreword.adapters.adapter import Adapter
from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.attention.builtin_observers import AttentionToPrompt
from foreword.backbone.batch import collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.loading.load_model import wrap
from foreword.errors import ModelError
from foreword.evaluation.evaluate import Reader
from foreword.methods import METHODS, WRITTEN, lora
from foreword.prompts.head import Head
from foreword.prompts.init import Material, initial_values
from foreword.specs import INIT_KINDS, Init
from foreword.tasks.base import budget_for
from foreword.tasks.few_shot import FewShot
from foreword.tasks.head_task import HeadTask
from foreword.tasks.multi_task_batch import Asked, predict_together
from foreword.tasks.streaming_task import StreamingTask
from foreword.training.hf_trainer import trainable
from foreword.training.loop import fit
from foreword.training.plan import TrainPlan

PLAN = TrainPlan(steps=2, batch_size=2, eval_every=1, checkpoint_every=1, tracker="none")


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    yield from entered(request.param)


def trained() -> list[tuple[str, str, str]]:
    """Every method with every task once, each time on the next kind of model; bitsandbytes has kernels of its own."""
    found: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for triple in supported():
        if triple[0] not in WRITTEN and not RECIPES[triple[0]].quantize:
            found.setdefault(triple[:2], []).append(triple)
    return [triples[number % len(triples)] for number, triples in enumerate(found.values())]


@pytest.mark.parametrize(("method", "kind", "name"), trained())
def test_what_is_trained_there_answers_alike_here(method: str, kind: str, name: str, device: torch.device) -> None:
    job, model = JOBS[kind], on(name, device)
    result = fit(model, RECIPES[method], job.task, job.examples, job.examples[:2], PLAN)
    assert all(tensor.device.type == "cpu" for tensor in result.adapter.tensors.values())
    there, here = Reader.of(model, result.adapter), Reader.of(on(name), result.adapter)
    near(there.predict(job.examples), here.predict(job.examples))
    scores, _ = there.evaluate(job.examples)
    assert scores["loss"].value == pytest.approx(here.evaluate(job.examples)[0]["loss"].value, abs=1e-3)


def read(name: str, kind: str, method: str, device: torch.device | str) -> Reader:
    """A task with a prompt that looks trained and a random head, made on the CPU."""
    made, model = spec(method, 3), on(name)
    task = JOBS[kind].task.for_model(model.info, made)
    head = Head(task.head, model.shape.states, seed=3) if task.head else None
    with torch.no_grad():
        state = AdapterState(prompt(model, made)(), head)
    return Reader(on(name, device), task, state.to(torch.device(device)), budget_for(made, model.info))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["prompt-tuning", "p-tuning-v2"])
def test_every_family_reads_alike(name: str, method: str, device: torch.device) -> None:
    kinds = {"causal": ("generate", "classify"), "encoder": ("tag", "choice"), "encoder-decoder": ("seq2seq", "probe")}[kind_of(name)]
    for kind in kinds:
        if why_not(method, kind, name) is None:
            near(*(read(name, kind, method, place).predict(JOBS[kind].examples) for place in (device, "cpu")))


class Killed(BaseException):
    """A run is killed after its first step."""


def kill(event: dict[str, object]) -> None:
    if event["event"] == "step" and event["step"] == 2:
        raise Killed


@pytest.mark.parametrize("kind", ["classify", "classify-head"])
@pytest.mark.parametrize("method", ["prompt-tuning", "p-tuning", "prefix-tuning", "lora", "full"])
def test_killed_and_resumed_is_never_killed(method: str, kind: str, device: torch.device, tmp_path: Path) -> None:
    job, model = JOBS[kind], on("llama", device)
    recipe = RECIPES[method]
    if recipe.prompt is not None:
        recipe = replace(recipe, prompt=replace(recipe.prompt, dropout=0.1))
    given = (model, recipe, job.task, job.examples, job.examples[:2], replace(PLAN, steps=3, gradient_checkpointing=True))
    whole = fit(*given).adapter
    with pytest.raises(Killed):
        fit(*given, out=tmp_path / "a", listener=kill)
    torch.manual_seed(5)
    resumed = fit(*given, out=tmp_path / "a", resume=True).adapter
    for name, tensor in whole.tensors.items():
        torch.testing.assert_close(resumed.tensors[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", INIT_KINDS)
@pytest.mark.parametrize("method", ["prompt-tuning", "prefix-tuning"])
@pytest.mark.parametrize("name", ["llama", "t5"])
def test_every_initialiser_gives_the_same_numbers(kind: str, method: str, name: str, device: torch.device) -> None:
    if kind == "kv_of_text" and method == "prompt-tuning":
        pytest.skip("an initialiser of the other site")
    made, material = spec(method, 4), Material("good or bad", ("good", "bad, no"), ("a film", "a joy to watch"))
    if kind not in ("adapter", "file"):
        made = replace(made, init=Init(kind))
    given = torch.ones(4, made.width(on(name).shape)) if kind in ("adapter", "file") else None
    there, here = (initial_values(made, on(name, place), material, given=given) for place in (device, "cpu"))
    torch.testing.assert_close(there.origin.cpu(), here.origin, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(there.scale.cpu(), here.scale, rtol=1e-4, atol=1e-5)


def test_heads_of_several_tasks_share_a_batch(device: torch.device) -> None:
    readers = [read("bert", kind, "p-tuning-v2", device) for kind in HEADED]
    asked = []
    for kind, reader in zip(HEADED, readers, strict=True):
        assert isinstance(reader.task, HeadTask)
        for example in JOBS[kind].examples:
            eval_feature, _ = reader.task.eval_feature(example, reader.model.info, reader.length_budget, truncate=False)
            asked.append(Asked(reader.task, reader.adapter_state, eval_feature))
    alone = [prediction for kind in HEADED for prediction in read("bert", kind, "p-tuning-v2", "cpu").predict(JOBS[kind].examples)]
    near(predict_together(readers[0].model, asked, 8), alone)


@pytest.mark.parametrize("kind", ["generate", "classify-head"])
def test_a_trainer_gets_the_same_loss(kind: str, device: torch.device) -> None:
    found = []
    for place in (device, torch.device("cpu")):
        model = trainable(on("llama", place), spec("prefix-tuning", 3) + lora(2), JOBS[kind].task, JOBS[kind].examples)
        features = model.features(JOBS[kind].examples[0])
        batch = {name: torch.tensor([value], device=place) for name, value in features.items()}
        loss = model(**batch).loss
        assert loss is not None
        loss.backward()
        assert all(p.grad is not None and p.grad.device == p.device for p in model.parameters())
        found.append(float(loss.detach()))
        model.adapter()
    assert found[0] == pytest.approx(found[1], abs=1e-4)


def test_streams_observers_and_few_shots(device: torch.device) -> None:
    there, here = (read("llama", "generate", "p-tuning-v2", place) for place in (device, "cpu"))
    assert isinstance(there.task, StreamingTask)
    example = JOBS["generate"].examples[0]
    assert list(there.stream(example)) == list(here.stream(example))
    shares = []
    for reader in (there, here):
        observer = AttentionToPrompt()
        feature, _ = reader.task.eval_feature(example, reader.model.info, reader.length_budget, truncate=False)
        reader.model.forward(collate(feature.rows), reader.adapter_state.tokens, [observer])
        shares.append(observer.shares[0][0].cpu())
    torch.testing.assert_close(*shares, rtol=1e-4, atol=1e-5)
    job, priors = JOBS["classify"], []
    for place in (device, "cpu"):
        model = on("llama", place)
        few = FewShot.of(job.task, job.examples[:1]).calibrated(model, budget_for(None, model.info))
        priors.append(few.tasks[0].to_dict()["prior"])
    assert priors[0] == pytest.approx(priors[1], abs=1e-4)


def test_dampening_and_a_calibrated_prior(device: torch.device) -> None:
    job, plan = JOBS["classify"], replace(PLAN, dampening=0.2, calibrate_prior=True)
    model = on("llama", device)
    adapter: Adapter = fit(model, spec("prompt-tuning", 3), job.task, job.examples, job.examples[:2], plan).adapter
    assert len(adapter.task["prior"]) == 2
    near(*(Reader.of(place, adapter).predict(job.examples) for place in (model, on("llama"))))


def test_a_model_spread_over_devices_is_refused(device: torch.device) -> None:
    model = on("llama", device)
    model.network.get_output_embeddings().to("cpu")
    with pytest.raises(ModelError) as caught:
        wrap(model.network, model.tokenizer.inner, name="tiny")
    assert str(caught.value) == (
        "model 'tiny' is spread over cpu, cuda:0, but Foreword reads a model on one device; load it without device_map, "
        "or with quantize='nf4' where it does not fit."
    )


def test_every_method_is_trained_with_every_task() -> None:
    assert {triple[:2] for triple in trained()} >= {(method, kind) for method in METHODS for kind in JOBS if kind != "seq2seq"}
    assert isinstance(on("llama"), FrozenModel)
