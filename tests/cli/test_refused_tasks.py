"""Mistakes in examples and adapters of every task, and combinations that cannot be: one whole sentence that names the row, exit 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli.given import ROWS, Foreword, save_tiny, write
from typer.testing import Result

QUICK = ("--method", "p-tuning-v2", "--length", "2", "--tracker", "none", "--steps", "2", "--eval-every", "2", "--batch-size", "4")
TAGS = [{"tokens": f"a good film {i}", "tags": "O O B-ART O"} for i in range(4)]
QA = [{"question": "What is it?", "context": f"The film {i} is bad", "answers": ["bad"]} for i in range(4)]
CHOICE = [{"question": f"film {i}", "choices": ["good", "bad"], "label": i % 2} for i in range(4)]
SETS = [{"text": f"film {i}", "label": ["fun", "war"][: i % 3]} for i in range(4)]
STARS = [{"text": f"film {i}", "label": i / 2} for i in range(4)]
FACTS = [{"subject": f"film {i}", "answer": ("good", "bad")[i % 2]} for i in range(4)]
PAIRS = [{**row, "text_b": "a film"} for row in ROWS[2:6]]

GOOD: dict[str, tuple[list[Any], tuple[str, ...]]] = {
    "tag": (TAGS, ()),
    "qa": (QA, ()),
    "choice": (CHOICE, ()),
    "multi-label": (SETS, ("--task", "multi-label")),
    "regress": (STARS, ("--task", "regress")),
    "probe": (FACTS, ()),
    "classify-head": (ROWS[2:6], ("--task", "classify-head")),
    "classify": (ROWS[2:6], ()),
}

# A row that cannot be, by task, and what is said of it wherever it is met: trained on, held out, or evaluated.
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("tag", {"tokens": "a good film", "tags": "O O"}, "'a good film' has 3 words but 2 tags; give each word one tag."),
    ("tag", {"tokens": " ", "tags": "O"}, "an example has no words in 'tokens'; fill it or remove the row."),
    (
        "qa",
        {**QA[0], "answers": ["good"]},
        "the answer 'good' to 'What is it?' is not in its context; correct it, or leave it empty where there is none.",
    ),
    (
        "qa",
        {**QA[0], "answers": {"text": ["bad"], "answer_start": [4]}},
        "the answer 'bad' to 'What is it?' is said to begin at 4, but 'fil' stands there; correct answer_start or leave it out.",
    ),
    (
        "qa",
        {**QA[0], "answers": [True]},
        '\'answers\' is [true], which is no JSON list of texts; write ["Paris"], or {"text": ["Paris"], "answer_start": [17]}.',
    ),
    (
        "choice",
        {**CHOICE[0], "label": "fine"},
        "label 'fine' is neither one of good, bad nor the number of one, counted from 0; correct the data.",
    ),
    (
        "choice",
        {**CHOICE[0], "choices": ["good"]},
        "the question 'film 0' has the choices good, but it needs at least two different ones; correct the data.",
    ),
    (
        "regress",
        {"text": "a", "label": "many"},
        "'label' is 'many', but regression needs a finite number; correct the data, or classify instead.",
    ),
    ("multi-label", {"text": "a", "label": "[1"}, '\'label\' is [1, which is no JSON list of texts; write ["like", "this"].'),
    (
        "classify-head",
        {**ROWS[2], "text_b": "a film"},
        "an example has two texts, text and text_b, but the task reads only text; leave text_b out, or train with both.",
    ),
    (
        "classify",
        {**ROWS[2], "text_b": "a film"},
        "an example has two texts, text and text_b, but the task reads only text; leave text_b out, or train with both.",
    ),
]

# Labels that were never trained: fine to train on, refused in other data.
NEW: list[tuple[str, dict[str, Any], str]] = [
    ("tag", {"tokens": "a film", "tags": "O B-WHO"}, "tag 'B-WHO' is not one of O, B-ART; correct the data, or train with this tag."),
    ("tag", {"tokens": "a film", "tags": "O NOUN"}, "tag 'NOUN' is not one of O, B-ART; correct the data, or train with this tag."),
    (
        "classify-head",
        {"text": "a", "label": "mixed"},
        "label 'mixed' is not one of bad, good; correct the data, or train with this label.",
    ),
    ("multi-label", {"text": "a", "label": ["sad"]}, "label 'sad' is not one of fun, war; correct the data, or train with this label."),
    (
        "probe",
        {"subject": "a", "answer": "fine"},
        "answer 'fine' is not one of the 2 candidates (bad, good); correct the data, or train with this answer.",
    ),
    (
        "qa",
        {**QA[0], "answers": []},
        "the question 'What is it?' has no answer, but this task is for questions that have one; remove it, or set unanswerable.",
    ),
]


def sentence(result: Result) -> str:
    assert (result.exit_code, result.stdout) == (2, "")
    return result.stderr.splitlines()[-1].removeprefix("foreword: error: ")


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, foreword: Foreword, model: Path) -> dict[str, Path]:
    """An adapter for each task; read them only."""
    folder, found = tmp_path_factory.mktemp("adapters"), {}
    for kind, (rows, options) in GOOD.items():
        data, found[kind] = write(folder / f"{kind}.jsonl", rows), folder / kind
        result = foreword("train", data, "--valid", data, "--model", model, "--out", found[kind], *QUICK, *options)
        assert result.exit_code == 0, result.stderr
    return found


@pytest.mark.parametrize(("kind", "row", "why"), BAD)
def test_a_row_that_cannot_be_is_named(
    foreword: Foreword, model: Path, adapters: dict[str, Path], tmp_path: Path, kind: str, row: dict[str, Any], why: str
) -> None:
    rows, options = GOOD[kind]
    data, good = write(tmp_path / "data.jsonl", [*rows, row]), write(tmp_path / "good.jsonl", rows)
    train = ("--model", model, "--out", tmp_path / "a", *QUICK, *options)
    assert sentence(foreword("train", data, "--valid", good, *train)) == f"row 5 of '{data}': {why}"
    assert sentence(foreword("train", good, "--valid", data, *train)) == f"row 5 of '{data}': {why}"
    assert sentence(foreword("evaluate", adapters[kind], data)) == f"row 5 of '{data}': {why}"


@pytest.mark.parametrize(("kind", "row", "why"), NEW)
def test_labels_that_differ_between_files(
    foreword: Foreword, model: Path, adapters: dict[str, Path], tmp_path: Path, kind: str, row: dict[str, Any], why: str
) -> None:
    rows, options = GOOD[kind]
    data, good = write(tmp_path / "data.jsonl", [*rows, row]), write(tmp_path / "good.jsonl", rows)
    train = ("--model", model, "--out", tmp_path / "a", *QUICK, *options)
    assert sentence(foreword("train", good, "--valid", data, *train)) == f"row 5 of '{data}': {why}"
    assert sentence(foreword("evaluate", adapters[kind], data)) == f"row 5 of '{data}': {why}"


def test_one_text_where_two_are_expected(foreword: Foreword, model: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", [*PAIRS, ROWS[0]])
    assert sentence(foreword("train", data, "--model", model, "--out", tmp_path / "a", *QUICK)) == (
        f"row 5 of '{data}' has no column 'text_b' (found: text, label); rename it, or map it with --columns text_b=NAME."
    )


def test_a_second_text_to_predict(foreword: Foreword, adapters: dict[str, Path]) -> None:
    for kind in ("classify", "classify-head"):
        result = foreword("predict", adapters[kind], "--json", input=json.dumps(PAIRS[0]) + "\n")
        assert sentence(result) == (
            "line 1 of standard input: an example has two texts, text and text_b, but the task reads only text; "
            "leave text_b out, or train with both."
        )


def test_a_head_for_another_number_of_labels(foreword: Foreword, adapters: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    data = write(tmp_path / "data.jsonl", TAGS)
    changed = Path(shutil.copytree(adapters["tag"], tmp_path / "changed"))
    manifest = changed / "foreword.json"
    manifest.write_text(manifest.read_text("utf-8").replace('"B-ART"', '"B-ART", "B-WHO"'), "utf-8")
    for command in (("evaluate", changed, data), ("predict", changed, "a film")):
        assert sentence(foreword(*command)) == (
            "the adapter's head has 2 outputs, but its task 'tag' needs 3; copy its foreword.json again, or retrain."
        )


def test_a_lora_of_another_base(foreword: Foreword, model: Path, reviews: Path, tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "other", num_hidden_layers=3)
    lora = ("--method", "lora", *QUICK[4:])
    assert foreword("train", reviews, "--model", other, "--out", tmp_path / "lora", *lora).exit_code == 0
    again = foreword("train", reviews, "--model", model, "--out", tmp_path / "a", *lora, "--lora-path", tmp_path / "lora")
    said = sentence(again)
    assert said.startswith(f"the adapter was trained on '{other}' with base model fingerprint ")
    assert said.endswith(f"; load the same version of '{other}', or retrain.")
    assert foreword("export", tmp_path / "lora", "--out", tmp_path / "peft").exit_code == 0
    foreign = foreword("train", reviews, "--model", model, "--out", tmp_path / "a", *lora, "--lora-path", tmp_path / "peft")
    assert sentence(foreign) == (
        f"the LoRA adapts model.layers.2.self_attn.q_proj, but '{model}' has no such layer; load it on its own base model."
    )


@pytest.mark.parametrize(
    ("family", "options", "why"),
    [
        (
            "deepseek_v3",
            ("--method", "prefix-tuning"),
            "method 'prefix-tuning' puts keys and values before every layer, but DeepSeek-V3 does not support them: its latent attention keeps "
            "no keys and values per head; use a method of the input site (prompt-like tables and encoders before the text), or LoRA.",
        ),
        (
            "deepseek_v3",
            ("--method", "qlora"),
            "model type 'deepseek_v3' keeps its experts in tensors that bitsandbytes leaves as they are; load it without quantize.",
        ),
        (
            "bert",
            ("--task", "classify"),
            "task 'classify' needs a model that writes words, but {model} is an encoder; use a task with a head, or a causal model.",
        ),
        (
            "t5",
            ("--task", "classify-head"),
            "task 'classify-head' needs a model of one stack, but {model} is an encoder–decoder; "
            "use task 'classify' or 'seq2seq', or an encoder or causal model.",
        ),
        (
            "llama",
            ("--method", "zero-shot", "--task", "classify"),
            "method 'zero-shot' trains nothing of task 'classify', which has no head; evaluate it as it is.",
        ),
        (
            "llama",
            ("--method", "few-shot", "--task", "classify-head"),
            "method 'few-shot' is a written prompt, but a 'classify-head' task has a head, which must be trained; use head-only.",
        ),
        (
            "llama",
            ("--method", "head-only", "--task", "classify"),
            "method 'head-only' trains nothing of task 'classify', which has no head; evaluate it as it is.",
        ),
    ],
)
def test_what_does_not_go_together(
    foreword: Foreword, reviews: Path, tmp_path: Path, family: str, options: tuple[str, ...], why: str
) -> None:
    from contract.triples import frozen

    found, folder = frozen(family), tmp_path / "model"
    found.network.save_pretrained(folder)
    found.tokenizer.inner.save_pretrained(folder)
    result = foreword("train", reviews, "--model", folder, "--out", tmp_path / "a", "--tracker", "none", *options)
    assert sentence(result) == why.replace("{model}", str(folder))
