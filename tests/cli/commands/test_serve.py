"""`foreword serve` in a process of its own, asked by `foreword ask`; what both refuse."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.given import Foreword
from server.given import ask, predicted, until
from server.server_process import ServerProcess, save_prompts, start

OWNER = "a key from the environment"


def words(process: ServerProcess) -> tuple[str, ...]:
    """How `foreword ask` reaches a server."""
    return ("--url", process.url, "--key", OWNER)


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tasks beside the model they record as a folder."""
    return save_prompts(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def alice(tmp_path_factory: pytest.TempPathFactory, foreword: Foreword) -> tuple[str, Path]:
    """A key that sees one task, and the file with its hash."""
    made = foreword("make-key", "alice", "--tasks", "writer", "--rate", "1000")
    keys = tmp_path_factory.mktemp("keys") / "keys.txt"
    keys.write_text(made.stdout, "utf-8")
    key = made.stderr.strip().rpartition(" ")[2]
    assert key.startswith("fw-") and key not in made.stdout and made.stdout.endswith(":tasks=writer:rate=1000\n")
    return key, keys


@pytest.fixture(scope="session")
def processes() -> Iterator[list[ServerProcess]]:
    """Those started so far."""
    found: list[ServerProcess] = []
    yield found
    for made in found:
        made.kill()


@pytest.fixture
def process(processes: list[ServerProcess], prompts: Path, alice: tuple[str, Path]) -> ServerProcess:
    """A server; the last one, unless a test has ended it."""
    if not processes or processes[-1].popen.poll() is not None:
        more = ("--load", "writer", "--model-name", "tiny", "--keys", alice[1], "--drain-seconds", "5")
        processes.append(start(prompts, *more, FOREWORD_API_KEY=OWNER))
    return processes[-1]


def test_the_banner_says_what_is_served(process: ServerProcess) -> None:
    assert process.said[:4] == [
        f"serving 3 tasks on tiny at {process.url} (docs: {process.url}/docs)",
        "  tasks: pairs, sentiment, writer",
        "  keys:  2 keys",
        f"  try:   curl {process.url}/v1/batch -H 'Content-Type: application/json' -H 'Authorization: Bearer KEY' "
        '-d \'{"model": "pairs", "input": {"question": "…", "context": "…"}}\'',
    ]
    assert ask(process.url, "/v1/tasks/writer", Authorization=f"Bearer {OWNER}").json["state"] == "resident"


def test_ask_prints_what_predict_prints(process: ServerProcess, prompts: Path, foreword: Foreword, tmp_path: Path) -> None:
    for name, text in (("sentiment", "a film"), ("writer", "a film")):
        assert foreword("ask", name, text, *words(process)).stdout == foreword("predict", prompts / name, text).stdout
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("a film", "x")), "utf-8")
    for more in ([], ["--json"]):
        asked = foreword("ask", "sentiment", "--file", rows, *words(process), *more).stdout
        told = foreword("predict", prompts / "sentiment", "--file", rows, *more).stdout
        if not more:
            assert asked == told
            continue
        for one, other in zip(map(json.loads, asked.splitlines()), map(json.loads, told.splitlines()), strict=True):
            assert one["label"] == other["label"] and one["scores"] == pytest.approx(
                other["scores"], abs=1e-6
            )  # they may come in two batches


def test_ask_streams_and_reads_several_columns(process: ServerProcess, foreword: Foreword) -> None:
    assert foreword("ask", "writer", "a film", "--stream", *words(process)).stdout == predicted("writer", "a film").text + "\n"
    example = {"question": "what", "context": "a film"}
    found = foreword("ask", "pairs", "--json", *words(process), input=json.dumps(example))
    assert json.loads(found.stdout) == {"input": example, "output": predicted("pairs", example).text}
    assert foreword("ask", "tiny", "a film", "--max-tokens", "3", *words(process)).exit_code == 0


def test_ask_says_what_is_wrong_in_one_sentence(process: ServerProcess, foreword: Foreword) -> None:
    missing = foreword("ask", "nobody", "x", *words(process))
    assert missing.exit_code == 2
    assert missing.stderr == "foreword: error: The model `nobody` does not exist; GET /v1/models lists those that do.\n"
    nowhere = foreword("ask", "writer", "x", "--url", "http://127.0.0.1:9")
    assert nowhere.stderr == (
        "foreword: error: no server answers at http://127.0.0.1:9 ([Errno 111] Connection refused); "
        "start one with `foreword serve`, or give --url.\n"
    )
    wrong = foreword("ask", "sentiment", "x", "--temperature", "1", *words(process))
    assert (
        wrong.stderr
        == "foreword: error: The task `sentiment` (classify) samples no tokens, so `temperature` does not apply; leave it out.\n"
    )
    assert foreword("ask", "writer", "x", "--url", "here").stderr == (
        "foreword: error: --url 'here' is no address of a server; give one such as http://127.0.0.1:8000.\n"
    )


def test_serve_refuses_before_it_loads(prompts: Path, foreword: Foreword, tmp_path: Path, process: ServerProcess) -> None:
    port = process.url.rpartition(":")[2]
    for words, sentence in {
        (str(prompts), "--host", "0.0.0.0"): "--host 0.0.0.0 accepts other machines, but no API keys are set; give --keys FILE "
        "(see `foreword make-key`), or --insecure to allow requests without a key.",
        (
            str(prompts),
            "--port",
            port,
        ): f"the server cannot listen on 127.0.0.1:{port} (Address already in use); choose another --host or --port.",
        (str(tmp_path),): f"'{tmp_path}' holds no adapter that says which base model it needs; give one with --model.",
        (str(prompts), "--max-queued", "0"): "--max-queued is 0, but it must be at least 1.",
    }.items():
        found = foreword("serve", *words)
        assert (found.exit_code, found.stderr) == (2, f"foreword: error: {sentence}\n")


def test_a_key_sees_its_tasks_and_sigterm_ends_the_server(process: ServerProcess, foreword: Foreword, alice: tuple[str, Path]) -> None:
    key, _ = alice
    assert ask(process.url, "/v1/models").status == 401
    refused = foreword("ask", "writer", "x", "--url", process.url)
    assert refused.stderr == "foreword: error: This server needs an API key; send a valid one as `Authorization: Bearer KEY`.\n"
    assert foreword("ask", "writer", "x", "--url", process.url, "--key", key).stdout.strip() == predicted("writer", "x").text
    assert "`sentiment` does not exist" in foreword("ask", "sentiment", "x", "--url", process.url, "--key", key).stderr
    process.popen.send_signal(signal.SIGTERM)
    assert process.popen.wait(30) == 0
    until(lambda: process.ended)
    assert any('"stopped"' in line for line in process.said) and key not in "\n".join(process.said)
