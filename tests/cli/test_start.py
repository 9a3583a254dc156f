"""The command as a process: what it imports (how fast it starts is measured in benchmarks/startup.py), how it meets a shell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from cli.given import Foreword
from typer.testing import CliRunner

COMMAND = [sys.executable, "-m", "foreword"]
COMMANDS = ("advise", "compare", "train", "evaluate", "predict", "demo", "show", "list", "verify", "import", "export")
HEAVY = {"torch", "transformers", "peft", "datasets", "pandas", "numpy", "fsspec"}


@pytest.mark.parametrize(
    "words",
    [["--help"], ["list", "{}"], ["show", "{}/sentiment"], ["verify", "{}"], ["advise", "--model", "{model}"]],
    ids=lambda words: words[0],
)
def test_light_commands_import_nothing_heavy(words: list[str], trained: Path, model: Path) -> None:
    words = [word.format(trained.parent, model=model) for word in words]
    code = f"import sys; sys.argv = ['foreword', *{words!r}]\ntry:\n    import foreword.__main__\nexcept SystemExit as stop:\n"
    code += f"    print(stop.code, sorted({HEAVY - {'fsspec'}!r} & set(sys.modules)), file=sys.stderr)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = "['numpy']" if words[0] == "verify" else "[]"  # which reads every number
    assert found.stderr.splitlines()[-1] in (f"0 {heavy}", f"None {heavy}")


def test_help_of_the_whole_needs_no_file_systems(tmp_path: Path) -> None:
    code = f"import sys, foreword.cli.main; print(sorted({HEAVY!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(foreword: Foreword, command: str) -> None:
    for flag in ("--help", "-h"):
        result = foreword(command, flag, env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
        assert result.exit_code == 0
        assert f"Example: foreword {command} " in result.stdout
        assert max(map(len, result.stdout.splitlines())) <= 80
    assert f" {command} " in foreword("--help").stdout


def test_version(foreword: Foreword) -> None:
    assert foreword("--version").stdout == f"foreword {version('foreword')}\n"


def test_no_words_at_all_show_the_help(foreword: Foreword) -> None:
    result = foreword()
    assert "Usage: foreword [OPTIONS] COMMAND" in result.stdout + result.stderr


def test_a_shell_completes_adapters_and_methods(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "prompts/sentiment")
    (tmp_path / "empty").mkdir()

    def complete(words: str) -> list[str]:
        asked = {"_FOREWORD_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
        code = "import sys; sys.argv = ['foreword']; from foreword.cli.main import app; app(prog_name='foreword')"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **asked}, cwd=tmp_path)
        return done.stdout.split()

    assert complete("foreword show ") == ["prompts/"]
    assert complete("foreword show prompts/s") == ["prompts/sentiment"]
    assert complete("foreword show nowhere/x") == []
    assert complete("foreword train x --method p-") == ["p-tuning", "p-tuning-v2"]


def test_a_closed_pipe_is_no_accident(trained: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, "show", str(trained), "--json"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 1


def test_output_of_a_process_is_json_alone_and_its_errors_are_sentences(trained: Path, tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, "predict", str(trained), "--json"], input="a joy\n", capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["input"] == "a joy"
    failed = subprocess.run([*COMMAND, "show", str(tmp_path)], capture_output=True, text=True)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert (
        failed.stderr
        == f"foreword: error: '{tmp_path}' is not an adapter of Foreword, it has no foreword.json; give a folder that Foreword saved.\n"
    )


def test_ctrl_c_before_anything_began_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from foreword.cli import main
    from foreword.cli.commands import show

    def interrupted(*words: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(show, "open_manifest", interrupted)
    result = CliRunner().invoke(main.app, ["show", "x"])
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "foreword: stopped.\n")
