"""The command `foreword`: its commands, one file each, and how it ends. A user's mistake is one sentence on standard error and exit code 2."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from foreword.cli.commands import (
    advise,
    ask,
    bench_serve,
    compare,
    demo,
    evaluate,
    export_peft,
    import_peft,
    list_adapters,
    make_key,
    predict,
    serve,
    show,
    train,
    verify,
)
from foreword.cli.commands.train import Resumable
from foreword.cli.support import output
from foreword.errors import ForewordError

MISTAKE, STOPPED = 2, 130  # 130 is what shells expect after Ctrl-C
TYPED = "foreword.typed"


class Commands(TyperGroup):
    """The group of all commands: keeps the arguments, and prints ForewordErrors as sentences."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[TYPED] = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Resumable as stopped:
            output.say(f"foreword: {stopped}\n  {_again(ctx)}")
            raise typer.Exit(STOPPED) from stopped
        except ForewordError as error:
            output.fail(error)
            raise typer.Exit(MISTAKE) from error
        except KeyboardInterrupt:
            output.say("foreword: stopped.")
            raise typer.Exit(STOPPED) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _again(ctx: Any) -> str:
    """The command line that continues this run."""
    typed = [word for word in ctx.meta[TYPED] if word != "--resume"]
    return shlex.join([*str(ctx.info_name).split(), *typed, "--resume"])


def _quiet_hub() -> None:
    """Environment variables that hub libraries read at import: no advice, and bars on terminals only. The user's own settings are kept."""
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    if not sys.stderr.isatty():
        for library in ("HF_HUB", "HF_DATASETS"):
            os.environ.setdefault(f"{library}_DISABLE_PROGRESS_BARS", "1")


def _version(asked: bool) -> bool:
    if asked:
        from importlib.metadata import version

        print(f"foreword {version('foreword')}")
        raise typer.Exit
    return asked


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    """Train, compare and serve soft prompts for frozen language models."""
    _quiet_hub()


WORK, SERVE, KEEP, MOVE = "Train and predict", "Serve", "Inspect adapters", "PEFT"

app.command("advise", rich_help_panel=WORK)(advise.advise_)
app.command("compare", rich_help_panel=WORK)(compare.compare)
app.command("train", rich_help_panel=WORK)(train.train)
app.command("evaluate", rich_help_panel=WORK)(evaluate.evaluate)
app.command("predict", rich_help_panel=WORK)(predict.predict)
app.command("demo", rich_help_panel=WORK)(demo.demo)
app.command("serve", rich_help_panel=SERVE)(serve.serve)
app.command("ask", rich_help_panel=SERVE)(ask.ask)
bench = typer.Typer(no_args_is_help=True, help="Measure the speed of a server.")
bench.command("serve")(bench_serve.bench_serve)
app.add_typer(bench, name="bench", rich_help_panel=SERVE)
app.command("make-key", rich_help_panel=SERVE)(make_key.make_key)
app.command("show", rich_help_panel=KEEP)(show.show)
app.command("list", rich_help_panel=KEEP)(list_adapters.list_adapters)
app.command("verify", rich_help_panel=KEEP)(verify.verify)
app.command("import", rich_help_panel=MOVE)(import_peft.import_)
app.command("export", rich_help_panel=MOVE)(export_peft.export)
