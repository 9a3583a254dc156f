"""Code rules that no linter checks: sizes, where method names may stand, what is public, what a light command imports."""

from __future__ import annotations

import ast
import graphlib
import importlib
import importlib.metadata
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "foreword"
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40
METHOD_NAME = re.compile(r"(prompt|prefix|\bp)[-_]?tuning", re.IGNORECASE)
METHOD_NAME_HOMES = {"foreword/methods.py", "foreword/adapters/peft_prompt.py", "foreword/adapters/peft_config.py", "foreword/__init__.py"}

# Longer than the budget, with the date and the reason: "path" or "path:function" -> why.
EXCEPTIONS: dict[str, str] = {}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def python_files(*folders: str) -> list[Path]:
    """Every Python file of the project's own folders."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def function_lines(node: Function) -> int:
    """Lines of a function without its docstring."""
    size = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node, clean=False) is not None:
        size -= (first.end_lineno or first.lineno) - first.lineno + 1
    return size


def too_large(source: str, name: str) -> Iterator[str]:
    """What of a source file is over budget: the file's name, or "file:function"."""
    if source.count("\n") > MAX_FILE_LINES:
        yield name
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function) and function_lines(node) > MAX_FUNCTION_LINES:
            yield f"{name}:{node.name}"


def docstring_lines(source: str) -> set[int]:
    """First lines of all docstrings, which may name methods: they are documentation."""
    bodies = (node.body for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Module | ast.ClassDef | Function))
    return {
        body[0].lineno
        for body in bodies
        if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) and isinstance(body[0].value.value, str)
    }


def method_names(source: str) -> Iterator[str]:
    """Lines of code, neither comment nor docstring, in which the name of a method stands."""
    documentation = docstring_lines(source)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        named = token.type not in (tokenize.COMMENT, tokenize.NEWLINE) and METHOD_NAME.search(token.string)
        if named and token.start[0] not in documentation:
            yield f"{token.start[0]}: {token.line.strip()}"


def imported(node: ast.AST) -> list[str]:
    """Modules that a statement imports by their full name."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


def import_graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """Which of these modules each of them imports, by source; imports inside functions and for type checkers count too."""
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        names: set[str] = set()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                inside = [f"{node.module}.{alias.name}" for alias in node.names]
                names |= {name if name in sources else node.module for name in inside}
        graph[module] = (names & sources.keys()) - {module}
    return graph


def cycle(sources: dict[str, str]) -> list[str]:
    """Modules that import each other in a circle, none where imports have an order."""
    try:
        graphlib.TopologicalSorter(import_graph(sources)).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def declared(requirements: list[str]) -> set[str]:
    return {canonical(re.split(r"[<>=!~\[ ]", requirement)[0]) for requirement in requirements}


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_files_and_functions_are_small() -> None:
    large = [
        entry
        for path in python_files("foreword", "tests", "examples", "benchmarks")
        for entry in too_large(path.read_text("utf-8"), name_of(path))
    ]
    assert sorted(set(large) - set(EXCEPTIONS)) == []
    assert sorted(set(EXCEPTIONS) - set(large)) == [], "these exceptions are no longer needed"


def test_the_size_budget_sees_what_is_too_large() -> None:
    body = "".join(f"    x = {i}\n" for i in range(MAX_FUNCTION_LINES))
    assert list(too_large(f"def small():\n{body[: body.rindex('    x')]}", "a.py")) == []
    assert list(too_large(f"def large():\n{body}", "a.py")) == ["a.py:large"]
    assert list(too_large(f'def documented():\n    """One.\n\n    Two.\n    """\n{body[: body.rindex("    x")]}', "a.py")) == []
    assert list(too_large("x = 1\n" * (MAX_FILE_LINES + 1), "b.py")) == ["b.py"]


@pytest.mark.parametrize("path", python_files("foreword"), ids=name_of)
def test_method_names_stand_in_the_recipes_and_the_peft_format_only(path: Path) -> None:
    if name_of(path) not in METHOD_NAME_HOMES:
        assert list(method_names(path.read_text("utf-8"))) == []


def test_a_branch_on_a_method_is_seen() -> None:
    assert list(method_names('if method == "p-tuning":\n    pass\n')) == ['1: if method == "p-tuning":']
    assert list(method_names("from peft import PromptTuningConfig\n")) == ["1: from peft import PromptTuningConfig"]
    assert list(method_names('kind = f"PREFIX_TUNING {x}"\n')) == ['1: kind = f"PREFIX_TUNING {x}"']
    assert list(method_names('def f():\n    """As prefix_tuning does."""  # and p_tuning\n')) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    names = {path: name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in python_files("foreword")}
    assert cycle({name: path.read_text("utf-8") for path, name in names.items()}) == []


def test_a_circle_of_imports_is_seen() -> None:
    line = {"p": "", "p.a": "from p import b", "p.b": "import p.c", "p.c": ""}
    assert cycle(line) == []
    assert set(cycle({**line, "p.c": "def f():\n    from p.a import x"})) == {"p.a", "p.b", "p.c"}
    assert set(cycle({**line, "p.c": "if TYPE_CHECKING:\n    from p.b import x"})) == {"p.b", "p.c"}


def test_public_names_are_sorted_and_exist() -> None:
    foreword = importlib.import_module("foreword")
    names = list(foreword.__all__)
    assert names == sorted(set(names))
    assert [name for name in names if getattr(foreword, name, None) is None] == []


def test_type_checkers_see_the_public_names() -> None:
    """The names that load on first use are listed a second time for type checkers; the lists must agree."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = [alias.asname or alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(seen) == importlib.import_module("foreword").__all__


def test_dependencies_are_those_imported() -> None:
    """Every third-party module that the package imports is declared, and nothing else is; extras may be imported by what they are for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [part for name, part in project["optional-dependencies"].items() if name != "dev"]
    needed, extra = declared(project["dependencies"]), declared([requirement for part in extras for requirement in part])
    trees = [ast.parse(path.read_text("utf-8")) for path in python_files("foreword")]
    modules = {name.split(".")[0] for tree in trees for node in ast.walk(tree) for name in imported(node)}
    owners = importlib.metadata.packages_distributions()
    third_party = modules - set(sys.stdlib_module_names) - {"foreword"}
    found = {canonical(owners[module][0]) for module in third_party}
    assert sorted(needed - found) == []
    assert sorted(found - needed - extra) == []


@pytest.mark.parametrize("arguments", [["--help"], ["list", "--help"], ["show", "--help"], ["list", "{empty}"]], ids=" ".join)
def test_light_commands_start_without_heavy_imports(arguments: list[str], tmp_path: Path) -> None:
    argv = ["foreword", *(argument.format(empty=tmp_path) for argument in arguments)]
    code = f"""
import sys
sys.argv = {argv!r}
from foreword.cli.main import app
try:
    app()
except SystemExit as stop:
    code = stop.code or 0
heavy = sorted({{"torch", "transformers", "peft", "datasets", "pandas", "numpy"}} & set(sys.modules))
print()
print(code, heavy)
"""
    assert run_python(code).splitlines()[-1] == "0 []"


SHARED_NAMES = {"__init__", "base", "registry"}


def test_no_file_name_stands_twice() -> None:
    """A command of the command line may be named like what it calls."""
    files: dict[str, list[str]] = {}
    for path in python_files("foreword"):
        if path.stem not in SHARED_NAMES and path.parent.name != "commands":
            files.setdefault(path.stem, []).append(name_of(path))
    assert {stem: paths for stem, paths in files.items() if len(paths) > 1} == {}
