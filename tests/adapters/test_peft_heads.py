"""LoRA with a head, read by real PEFT over transformers' own classes, gives our logits; every other head is refused with the reason."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_encoders
import torch
import transformers
from contract.given import TOLERANCE, distance
from contract.triples import frozen
from peft import PeftModel
from torch import Tensor

from foreword.adapters.adapter import HEAD, Adapter
from foreword.adapters.peft_import_export import export_folders
from foreword.adapters.safetensors_file import KEY
from foreword.backbone.weights.lora import attach
from foreword.errors import AdapterError, FingerprintError
from foreword.methods import prompt_tuning
from foreword.prompts.head import Head
from foreword.recipe import LoraSpec, Recipe
from foreword.tasks.base import Task, budget_for
from foreword.tasks.choice import Choice
from foreword.tasks.head_classify import HeadClassify
from foreword.tasks.head_task import pool, read_inputs
from foreword.tasks.multilabel import MultiLabel
from foreword.tasks.qa import QA
from foreword.tasks.regress import Regress
from foreword.tasks.tag import Tag

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT asks by the old name

TEXT = "a joy to watch and a dull mess of a film"
TASKS: dict[str, Task] = {
    "tag": Tag(("A", "B", "C")),
    "qa": QA(),
    "classify-head": HeadClassify(("no", "maybe", "yes")),
    "multi-label": MultiLabel(("fun", "war")),
}
TARGETS = ("attention", "all-linear")
CAUSAL, ENCODERS = list(tiny.TINY), list(tiny_encoders.TINY)
NO_MODEL = {
    "tag": ["gemma3_text", "opt", "olmo2", "granite", "modernbert"],
    "qa": ["modernbert"],
    "classify-head": ["granite"],
    "multi-label": ["granite"],
}
CASES = [
    (name, kind)
    for kind in TASKS
    for name in (*CAUSAL, *ENCODERS)
    if (kind != "qa" or name in ENCODERS) and (kind in ("tag", "qa") or name in CAUSAL) and name not in NO_MODEL[kind]
]


def made(name: str, task: Task, targets: str = "attention") -> Adapter:
    """An adapter with a LoRA whose every number is moved, and a random head."""
    model, spec = frozen(name), LoraSpec(4, targets=targets)
    task = task.for_model(model.info, None)
    assert task.head is not None
    generator = torch.Generator().manual_seed(7)
    lora = {key: 0.2 * torch.randn(tensor.shape, generator=generator) for key, tensor in attach(model, spec)[1].state().items()}
    head = Head(task.head, model.shape.states, seed=3)
    if head.bias is not None:
        torch.nn.init.normal_(head.bias, generator=generator)
    tensors = lora | {HEAD + key: tensor for key, tensor in head.bake().items()}
    marks = (model.name, model.fingerprint, model.tokenizer_fingerprint)
    return Adapter(Recipe("lora", lora=spec), model.shape, tensors, task.to_dict(), *marks)


@torch.no_grad()
def ours(adapter: Adapter, name: str, kind: str) -> tuple[Tensor, tuple[int, ...]]:
    """What the head says of a text: at each token, or once; and the text's tokens."""
    model, task = frozen(name), TASKS[kind].for_model(frozen(name).info, None)
    example = {"text": TEXT, "tokens": TEXT, "question": "is it?", "context": TEXT}
    row = task.eval_feature(example, model.info, budget_for(None, model.info), truncate=False)[0].rows[0]
    inputs, head = read_inputs(adapter.model(model), None, [row]), adapter.adapter_state().needed_head()
    return head(inputs.states)[0] if kind in ("tag", "qa") else head(pool(inputs, "last"))[0], row.ids


@torch.no_grad()
def theirs(note: str, folder: Path, name: str, kind: str) -> tuple[Tensor, tuple[int, ...]]:
    """The same of transformers' own model with PEFT's LoRA and head, loaded and fed as the note says."""
    found = re.match(r"Load the base as (\w+) with num_labels=(\d)\.", note)
    assert found is not None
    model, models = frozen(name), tiny if name in CAUSAL else tiny_encoders
    network = getattr(transformers, found[1]).from_config(models.config(name, num_labels=int(found[2])))
    base = dict(models.network(name).base_model.state_dict())
    network.base_model.load_state_dict({key: base[key] for key in network.base_model.state_dict()})
    peft = PeftModel.from_pretrained(network, folder).eval()
    texts = ("is it?", TEXT) if kind == "qa" else (TEXT,)
    given = model.tokenizer.inner(*texts, return_tensors="pt", return_token_type_ids=model.typed)
    out = (peft.base_model if kind == "qa" else peft)(**given)
    logits = torch.stack([out.start_logits[0], out.end_logits[0]], 1) if kind == "qa" else out.logits[0]
    return logits, tuple(given["input_ids"][0].tolist())


@pytest.mark.parity
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_peft_gives_our_logits(name: str, kind: str, tmp_path: Path) -> None:
    targets = TARGETS[(CASES.index((name, kind)) + len(name)) % 2]
    adapter = made(name, TASKS[kind], targets)
    (exported,) = export_folders(adapter, tmp_path / "out", frozen(name))
    mine, ids = ours(adapter, name, kind)
    found, fed = theirs(exported.note, exported.path, name, kind)
    assert fed == ids and distance(mine, found) < TOLERANCE
    bare = Adapter(Recipe("head-only"), adapter.shape, {k: v for k, v in adapter.tensors.items() if k.startswith(HEAD)}, *rest(adapter))
    assert distance(mine, ours(bare, name, kind)[0]) > 1e-3, "the LoRA must change something"


def rest(adapter: Adapter) -> tuple[Any, ...]:
    return adapter.task, adapter.base, adapter.base_fingerprint, adapter.tokenizer_fingerprint


def refused(adapter: Adapter, folder: Path) -> str:
    with pytest.raises(AdapterError) as caught:
        export_folders(adapter, folder)
    assert not folder.exists()
    return str(caught.value).removeprefix("the adapter cannot be exported to PEFT, because ").removesuffix("; use it with Foreword.")


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in NO_MODEL.items() for name in names])
def test_families_without_such_a_model(kind: str, name: str, tmp_path: Path) -> None:
    from foreword.families.registry import family_of

    title = family_of(frozen(name).shape.family).title
    assert refused(made(name, TASKS[kind]), tmp_path / "a") == (
        f"transformers has no model of {title} for task '{kind}' whose head is one linear layer on the last states"
    )


@pytest.mark.parametrize(
    ("name", "task", "why"),
    [
        (
            "bert",
            HeadClassify(("no", "yes")),
            "transformers' classifiers of encoders have one more layer before the head",
        ),
        (
            "llama",
            HeadClassify(("no", "yes"), pooling="mean"),
            "its head uses pooling 'mean', but transformers' head reads the last token; train with pooling 'last'",
        ),
        ("llama", HeadClassify(("no", "yes"), pair=True), "transformers' head reads one text, but this task has two"),
        ("llama", QA(), "a causal model reads words behind the context here, and transformers' reads none"),
        ("bert", Regress(), "PEFT has no counterpart of task 'regress'"),
        ("llama", Choice(), "PEFT has no counterpart of task 'choice'"),
    ],
)
def test_heads_that_read_other_states(name: str, task: Task, why: str, tmp_path: Path) -> None:
    assert refused(made(name, task), tmp_path / "a") == why


def test_a_prompt_beside_them_is_refused(tmp_path: Path) -> None:
    adapter = made("bert", TASKS["tag"])
    both = prompt_tuning(2) + LoraSpec(4)
    adapter = Adapter(both, adapter.shape, adapter.tensors | {KEY: torch.zeros(2, 32)}, *rest(adapter))
    with pytest.raises(AdapterError) as caught:
        export_folders(adapter, tmp_path / "a")
    assert str(caught.value) == (
        "the adapter cannot be exported to PEFT, because it holds more than a soft prompt (method 'prompt-tuning+lora', task 'tag'); "
        "use it with Foreword."
    )


def test_notes_say_how_to_load_feed_and_read(tmp_path: Path) -> None:
    notes = [
        export_folders(made(name, TASKS[kind]), tmp_path / kind)[0].note
        for name, kind in (("bert", "tag"), ("bert", "qa"), ("llama", "classify-head"), ("llama", "multi-label"))
    ]
    assert notes == [
        "Load the base as AutoModelForTokenClassification with num_labels=3. Give it the words joined by single spaces; "
        "the tag of a word stands at its first token. The classes are A, B, C.",
        "Load the base as AutoModelForQuestionAnswering with num_labels=2. Give the question and the context as a pair to its `base_model`, "
        "because the forward of PeftModelForQuestionAnswering drops token_type_ids.",
        "Load the base as AutoModelForSequenceClassification with num_labels=3. Give it the text, without any token behind it. "
        "The classes are no, maybe, yes.",
        "Load the base as AutoModelForSequenceClassification with num_labels=2. Give it the text, without any token behind it; "
        "a label holds where its logit is above 0. The classes are fun, war.",
    ]
    config = json.loads((tmp_path / "tag" / "adapter_config.json").read_text())
    assert (config["task_type"], config["modules_to_save"], config["target_modules"]) == ("TOKEN_CLS", ["classifier"], ["query", "value"])


def test_another_base_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FingerprintError):
        export_folders(made("bert", TASKS["tag"]), tmp_path / "a", frozen("electra"))
