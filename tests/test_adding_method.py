"""A new method is one recipe: that of docs/adding.md, known to nothing else, is trained, saved, loaded, asked and sized by its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
from adding import block, commands
from typer.testing import CliRunner

from foreword import methods
from foreword.adapters.adapter import Adapter
from foreword.cli.main import app
from foreword.evaluation.evaluate import Reader
from foreword.methods import METHODS
from foreword.specs import Init, PromptSpec, Reparam
from foreword.tasks.classify import Classify
from foreword.training.loop import fit
from foreword.training.plan import TrainPlan

NAME = "top-layers"
ROWS = [{"text": f"a {word} film {i}", "label": label} for i in range(4) for word, label in (("good", "yes"), ("bad", "no"))]
QUICK = ("--tracker", "none", "--steps", "2", "--eval-every", "2", "--batch-size", "4", "--json")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with data and a tiny model of three layers, where the package has one recipe more."""
    found = dict[str, PromptSpec]()
    exec(block("recipe"), {"METHODS": found, "PromptSpec": PromptSpec, "Reparam": Reparam, "Init": Init})
    ((name, recipe),) = found.items()
    monkeypatch.setitem(METHODS, name, recipe)  # type: ignore[arg-type]  # what the block has put there
    for name in ("reviews.jsonl", "test.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    tiny.network("llama", num_hidden_layers=3).save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def typed(*words: str) -> str:
    """What a command prints, once it has ended well."""
    found = CliRunner().invoke(app, list(words), prog_name="foreword")
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code == 0, f"{words}: {found.output}"
    return found.stdout


def test_a_new_method_by_the_command_line(place: Path) -> None:
    train, predict, evaluate, advise = commands("A new method", place / "model")
    advice = json.loads(typed(*advise, "--text-tokens", "32", "--json"))
    document = json.loads(typed(*train, *QUICK))
    adapter = Adapter.load(place / "prompts/top")
    assert document["method"] == adapter.method == NAME
    assert adapter.recipe.prompt == METHODS[NAME]() and adapter.recipe.prompt.layers == "last:2", "the recipe's own layers"
    assert document["num_parameters"] == 10 * 2 * 2 * 32, "length, layers, keys and values, width"

    answers = [json.loads(line) for line in typed(*predict, "--json").splitlines()]
    assert answers[0]["label"] in ("yes", "no")
    assert json.loads(typed(*evaluate, "--json"))["n"] == len(ROWS)
    sized = {row["method"]: row for row in advice["sizing"]["methods"]}
    assert sized[NAME]["num_parameters"] == 20 * 2 * 2 * 32 and advice["recommended"]["method"] != NAME
    assert {*METHODS} <= {*sized}, "the others are there as before"


def test_options_replace_what_the_recipe_says(place: Path) -> None:
    train = next(commands("A new method", place / "model"))
    typed(*train, *QUICK, "--layers", "0", "--length", "3", "--init", "random", "--dropout", "0.1")
    spec = Adapter.load(place / "prompts/top").recipe.prompt
    assert spec is not None and (spec.layers, spec.length, spec.init.kind, spec.dropout) == ((0,), 3, "random", 0.1)


def test_a_new_method_by_the_api(place: Path) -> None:
    model = tiny.build("llama", num_hidden_layers=3)
    spec = methods.recipe(NAME, length=4)
    assert spec == METHODS[NAME](4)
    result = fit(model, spec, Classify(("no", "yes")), ROWS, ROWS[:2], TrainPlan(steps=2, eval_every=2, batch_size=4, tracker="none"))
    result.adapter.save(place / "prompts/api")
    loaded = Adapter.load(place / "prompts/api")
    assert loaded.method == NAME and loaded.recipe == result.adapter.recipe
    both = [Reader.of(model, adapter).predict(ROWS) for adapter in (result.adapter, loaded)]
    assert both[0] == both[1] and {answer.text for answer in both[0]} <= {"no", "yes"}
