"""The examples of docs/serve.md, word for word, against a server with the tasks they name."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from server.given import WRITERS, Served, adapter, ask, predicted, serve
from typer.testing import CliRunner

from foreword.cli.main import app

PAGE = (Path(__file__).resolve().parents[2] / "docs/serve.md").read_text("utf-8")
TEXT = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = {language: [body for found, body in TEXT.findall(PAGE) if found == language] for language in ("sh", "python")}
LINES = [line for block in BLOCKS["sh"] for line in block.splitlines()]
HERE = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path]]:
    folder = tmp_path_factory.mktemp("docs")
    for name, like in {"sentiment": "sentiment", "headlines": "writer", "entails": "entails"}.items():
        adapter(like).save(folder / "prompts" / name)
    (folder / "test.jsonl").write_text("".join(json.dumps({"text": text, "label": "good"}) + "\n" for text in ("a film", "x")), "utf-8")
    (folder / "texts.txt").write_text("a joy\na mess\n", "utf-8")
    found = serve(folder / "prompts")
    yield found, folder
    found.stop()
    found.join()


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("foreword ")])
def test_commands(place: tuple[Served, Path], line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server, folder = place
    monkeypatch.chdir(folder)
    words = shlex.split(line.partition(" >> ")[0])[1:]
    if words[0] == "serve":  # it would not end: its words are read, and no more
        command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
        assert command.make_context("serve", words[1:]).params["folder"] == "prompts"
        return
    found = CliRunner().invoke(app, words, env={"FOREWORD_URL": server.url})
    assert found.exit_code == 0 and found.stdout, found.output


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("curl ")])
def test_curls(place: tuple[Served, Path], line: str) -> None:
    server, _ = place
    _, url, flag, header, data, body = shlex.split(line)
    assert (flag, header, data) == ("-H", "Content-Type: application/json", "-d")
    found = ask(server.url, url.removeprefix(HERE), body.encode())
    assert found.status == 200 and not any("error" in item for item in found.json["data"])


@pytest.mark.parametrize("block", BLOCKS["python"])
def test_python(place: tuple[Served, Path], block: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    exec(compile(block.replace(HERE, place[0].url), "example", "exec"), names)
    said = capsys.readouterr().out
    assert said.startswith(predicted("writer", "Rain is expected in the north").text) and said.endswith(
        predicted("writer", "Rain is expected").text
    )
    names["client"].close()  # type: ignore[attr-defined]


def test_every_option_and_endpoint_is_on_the_page(place: tuple[Served, Path]) -> None:
    paths = {
        path.replace("/v1/models/{name}", "/v1/models").replace("/v1/tasks/{name}", "/v1/tasks")
        for path in ask(place[0].url, "/openapi.json").json["paths"]
    }
    assert [path for path in sorted(paths) if path not in PAGE] == [] and "entails" in WRITERS
