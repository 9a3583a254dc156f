"""docs/advise.md says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from foreword.advisor import rules

PAGE = (Path(__file__).resolve().parents[2] / "docs/advise.md").read_text("utf-8")


def test_the_rules_on_the_page_are_the_rules() -> None:
    block = PAGE.split("<!-- rules:start -->\n")[1].split("\n<!-- rules:end -->")[0]
    assert block == rules.as_markdown(), "run scripts/docs"


def test_a_rule_in_words() -> None:
    first, *_ = rules.as_markdown().splitlines()[2:]
    assert first.startswith("| serving is bare | lora, qlora, full | LoRA can be merged")
    assert "| knowledge is far and examples >= 10,000 and tasks < 3 | full |" in rules.as_markdown()
    assert "| task is tag or qa |" in rules.as_markdown()
    assert "| always |" in rules.as_markdown()


def test_every_option_on_the_page_exists() -> None:
    import typer

    from foreword.cli.main import app

    options = {name for option in typer.main.get_command(app).commands["advise"].params for name in option.opts}  # type: ignore[attr-defined]
    assert set(re.findall(r"`(--[a-z-]+)", PAGE)) <= options
