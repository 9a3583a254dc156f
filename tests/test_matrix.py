"""scripts/docs: the support matrix of the README and the pages of results are made, never written."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def docs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script as a module that writes to a README and method pages of its own."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec = spec_from_loader("docs_script", SourceFileLoader("docs_script", str(ROOT / "scripts" / "docs")))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    for page in (ROOT / "docs" / "methods").glob("*.md"):
        copy = tmp_path / page.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text("<!-- results:start -->\n<!-- results:end -->\n", "utf-8")
    (tmp_path / "docs" / "tasks").mkdir()
    for page in ("advise.md", "tasks/kinds.md"):
        (tmp_path / "docs" / page).write_bytes((ROOT / "docs" / page).read_bytes())
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return module


def run(docs: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["scripts/docs", *arguments])
    docs.main()


def test_the_readme_holds_todays_matrix(docs: ModuleType) -> None:
    assert f"{docs.START}\n{docs.matrix()}\n{docs.END}" in (ROOT / "README.md").read_text("utf-8"), "run scripts/docs"


def test_a_stale_matrix_is_seen_and_renewed(docs: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{docs.START}\n| old |\n{docs.END}\nafter\n", "utf-8")
    with pytest.raises(SystemExit) as caught:
        run(docs, monkeypatch, "--check")
    assert str(caught.value) == "docs: out of date: README.md, docs/results.md; run scripts/docs."
    assert "| old |" in readme.read_text("utf-8"), "checking writes nothing"
    run(docs, monkeypatch)
    text = readme.read_text("utf-8")
    assert text.startswith(f"before\n{docs.START}\n✓ means that the tests ") and text.endswith(f"{docs.END}\nafter\n") and "old" not in text
    assert "| DeepSeek-V3 | `deepseek_v3` | ✓ | – | – | – |" in text and "| Gemma 3 | `gemma3_text` | ✓ | ✓ | ✓ | ✓ |" in text
    assert "| BERT | `bert` | ✓ | ✓ | ✓ | – |" in text and "| ModernBERT | `modernbert` | ✓ | ✓ | – | ✓ |" in text
    assert "Not measured yet" in (tmp_path / "docs" / "results.md").read_text("utf-8"), "there are no result files here"
    run(docs, monkeypatch, "--check")


def test_a_method_page_without_a_place_for_results(docs: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"{docs.START}\n{docs.END}\n", "utf-8")
    (tmp_path / "docs" / "methods" / "p-tuning.md").write_text("# P-tuning\n", "utf-8")
    with pytest.raises(SystemExit) as caught:
        run(docs, monkeypatch)
    assert str(caught.value) == "docs: p-tuning.md needs one line '<!-- results:start -->' and, after it, one line '<!-- results:end -->'."


@pytest.mark.parametrize("text", ["no markers", "<!-- matrix:end -->\n<!-- matrix:start -->", "<!-- matrix:start -->\n"])
def test_a_readme_without_a_place_for_it(docs: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(text, "utf-8")
    with pytest.raises(SystemExit) as caught:
        run(docs, monkeypatch)
    assert str(caught.value) == (
        "docs: README.md needs one line '<!-- matrix:start -->' and, after it, one line '<!-- matrix:end -->'; "
        "put them where the support matrix belongs."
    )
