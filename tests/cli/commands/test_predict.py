"""`foreword predict` and `evaluate`: every way to give texts, and what comes back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.given import QUICK, ROWS, Foreword, write


def answers(stdout: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in stdout.splitlines()]


def test_one_text_gives_every_label_and_its_share(foreword: Foreword, trained: Path) -> None:
    result = foreword("predict", trained, "a joy to watch")
    (first, high), (second, low) = (line.split() for line in result.stdout.splitlines())
    assert {first, second} == {"good", "bad"}
    assert float(high) >= float(low)
    assert float(high) + float(low) == pytest.approx(1, abs=2e-3)
    assert result.stderr == ""


def test_several_texts_give_a_line_each(foreword: Foreword, trained: Path) -> None:
    lines = foreword("predict", trained, "a joy to watch", "a\ndull mess").stdout.splitlines()
    assert [line.split("  ")[-1] for line in lines] == ["a joy to watch", "a dull mess"]


def test_arguments_lines_and_files_are_answered_alike(foreword: Foreword, trained: Path, tmp_path: Path) -> None:
    texts = [row["text"] for row in ROWS[:5]]
    rows = write(tmp_path / "rows.jsonl", [{"text": text} for text in texts])
    lines = tmp_path / "rows.txt"
    lines.write_text("\n".join(texts), "utf-8")
    table = tmp_path / "rows.csv"
    table.write_text("text\n" + "".join(f'"{text}"\n' for text in texts), "utf-8")
    expected = foreword("predict", trained, *texts, "--json").stdout
    found = answers(expected)
    assert [answer["input"] for answer in found] == texts
    assert all(set(answer) == {"input", "label", "scores"} for answer in found)
    assert all(max(answer["scores"], key=answer["scores"].get) == answer["label"] for answer in found)
    for file in (rows, lines, table):
        assert foreword("predict", trained, "--file", file, "--json").stdout == expected
    assert foreword("predict", trained, "--json", input="\n".join(texts)).stdout == expected
    assert foreword("predict", trained, "--file", "-", "--json", input=rows.read_bytes()).stdout == expected


def test_answers_keep_the_order_over_many_batches(foreword: Foreword, trained: Path) -> None:
    texts = [f"film {i}" + " joy" * (i % 7) for i in range(70)]
    result = foreword("predict", trained, "--batch-size", 2, "--json", input="\n".join(texts))
    assert [answer["input"] for answer in answers(result.stdout)] == texts


def test_a_writer_writes(foreword: Foreword, writer: Path) -> None:
    document = answers(foreword("predict", writer, "a joy", "--json").stdout)[0]
    assert list(document) == ["input", "output"]
    assert foreword("predict", writer, "a joy").stdout == f"{document['output']}\n"
    streamed = foreword("predict", writer, "a joy", "--stream").stdout
    assert streamed.strip() == str(document["output"]).strip()
    assert foreword("predict", writer, "a joy", "a mess", "--stream").stdout.startswith("> a joy\n")


def test_a_text_that_begins_like_json_is_a_text(foreword: Foreword, trained: Path) -> None:
    found = answers(foreword("predict", trained, "--json", input="{not json}\n").stdout)
    assert [answer["input"] for answer in found] == ["{not json}"]


@pytest.mark.parametrize(
    ("words", "given", "sentence"),
    [
        (["x", "--file", "y.txt"], None, "texts and --file were both given; give one of them."),
        (["x", "--stream", "--json"], None, "--stream and --json were both given, but JSON cannot be streamed; leave one of them out."),
        (["x", "--stream"], None, "a 'classify' task has no text to stream; use predict."),
        ([], b"", "standard input is empty; give one text or JSON object a line."),
        ([], b"\n \n", "no text came, only empty lines; give one text or JSON object a line."),
        ([], b"fine\ncaf\xe9\n", "line 2 of standard input is not UTF-8 text: byte 0xe9; convert it to UTF-8."),
        ([], b'{"txt": "x"}', "line 1 of standard input has no text 'text' (found: txt); give an object with the keys text."),
        (["--file", "none.txt"], None, "'none.txt' cannot be read (No such file or directory); check the path and its permissions."),
        (["caf\udce9"], None, "a text of the command line is not UTF-8; save it in a file as UTF-8 and pass --file."),
    ],
)
def test_texts_that_cannot_be(foreword: Foreword, trained: Path, words: list[str], given: bytes | None, sentence: str) -> None:
    result = foreword("predict", trained, *words, input=given)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"foreword: error: {sentence}\n")


def test_a_task_of_several_columns_takes_objects(foreword: Foreword, model: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "pairs.jsonl", [{"one": row["text"], "two": "a film", "label": row["label"]} for row in ROWS])
    out = tmp_path / "pairs"
    assert foreword("train", data, "--model", model, "--out", out, "--template", "{one}{soft}{two} {answer}", *QUICK).exit_code == 0
    found = answers(foreword("predict", out, "--json", input='{"two": "b", "one": "a", "more": 1}\n').stdout)
    assert [answer["input"] for answer in found] == [{"one": "a", "two": "b"}]
    for words, given, sentence in (
        (
            ["text"],
            None,
            "a text came, but the adapter reads one, two; give JSON objects with these keys in a --file or on standard input.",
        ),
        ([], b"text\n", "line 1 of standard input is not a JSON object, but the adapter reads one, two; give an object with these keys."),
        (
            [],
            b'{"one": "a", "two": 2}\n',
            "line 1 of standard input has no text 'two' (found: one, two); give an object with the keys one, two.",
        ),
    ):
        assert foreword("predict", out, *words, input=given).stderr == f"foreword: error: {sentence}\n"


def test_evaluate_gives_scores_with_errors(foreword: Foreword, trained: Path, reviews: Path) -> None:
    result = foreword("evaluate", trained, reviews, "--json")
    found = json.loads(result.stdout)
    assert result.stderr == ""
    assert {key: found[key] for key in ("adapter", "n", "truncated")} == {"adapter": str(trained), "n": 40, "truncated": 0}
    assert {name: set(score) for name, score in found["scores"].items()} == dict.fromkeys(
        ("accuracy", "macro_f1", "loss"), {"value", "stderr", "n"}
    )
    lines = foreword("evaluate", trained, reviews).stdout.splitlines()
    accuracy = found["scores"]["accuracy"]
    assert lines[0] == f"accuracy  {accuracy['value']:.3f} ± {accuracy['stderr']:.3f} (n 40)"


def test_evaluate_agrees_with_predict(foreword: Foreword, trained: Path, reviews: Path) -> None:
    labels = [answer["label"] for answer in answers(foreword("predict", trained, "--file", reviews, "--json").stdout)]
    share = sum(label == row["label"] for label, row in zip(labels, ROWS, strict=True)) / len(ROWS)
    assert json.loads(foreword("evaluate", trained, reviews, "--json").stdout)["scores"]["accuracy"]["value"] == pytest.approx(share)


def test_evaluate_says_how_many_texts_it_cut(foreword: Foreword, trained: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "long.jsonl", [*ROWS[:2], {"text": "joy " * 200, "label": "good"}])
    result = foreword("evaluate", trained, data, "--truncate")
    assert result.stderr == "note: 1 text did not fit and lost the end.\n"
