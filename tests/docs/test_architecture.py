"""The pages for developers name functions, packages and files that exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src/phonofs"
TEXT = (ROOT / "contrib/docs/architecture.md").read_text(encoding="utf-8")
STEP = re.compile(r"^\d+\. `(\w+)`, `([\w/]+\.py)`: ", re.M)
CONTRIBUTING = (ROOT / "contrib/docs/contributing.md").read_text(encoding="utf-8")
PATH = re.compile(r"`((?:src|tests|contrib)/[\w./-]+|README\.md)`")
MOST_STEPS = 12
MOST_WORDS = 25


def sections(start: str, stop: str) -> dict[str, str]:
    """Return the text below each ``###`` heading of a part of the page."""
    part = TEXT.split(f"\n## {start}\n")[1].split(f"\n## {stop}\n")[0]
    pieces = re.split(r"^### (.+)$", part, flags=re.M)[1:]
    return dict(zip(pieces[::2], pieces[1::2], strict=True))


PATHS = sections("How a request travels", "The rules")


@cache
def functions(path: Path) -> frozenset[str]:
    """Return the names of all functions and methods that a file defines."""
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return frozenset(
        node.name for node in tree if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def elsewhere(name: str) -> list[str]:
    """Return the files that define a function, for the message of a failed test."""
    paths = sorted(SOURCE.rglob("*.py"))
    return [str(path.relative_to(SOURCE)) for path in paths if name in functions(path)]


def test_the_paths_are_shown() -> None:
    assert list(PATHS) == [
        "An open", "A cold read", "A warm read", "A listing", "A read through the door",
        "A GET of an S3 client", "A search", "A text of a view", "An export",
        "A change", "A token refresh",
    ]  # fmt: skip


@pytest.mark.parametrize("title", PATHS)
def test_each_path_names_functions_that_exist(title: str) -> None:
    steps = STEP.findall(PATHS[title])
    assert len(steps) == len(re.findall(r"^\d+\.", PATHS[title], re.M)), "a step without function"
    assert 0 < len(steps) <= MOST_STEPS
    missing = {
        f"{name} in {file}": elsewhere(name)
        for name, file in steps
        if not (SOURCE / file).is_file() or name not in functions(SOURCE / file)
    }
    assert missing == {}, "with the files that define a function of this name"


def test_every_package_is_in_the_table_of_packages() -> None:
    for path in sorted(SOURCE.iterdir()):
        if path.name.startswith("__") or path.suffix not in ("", ".py"):
            continue
        name = f"{path.name}/" if path.is_dir() else path.name
        assert f"`{name}`" in TEXT, name


def test_the_glossary_is_short() -> None:
    glossary = TEXT.split("\n## Glossary\n")[1]
    words = re.findall(r"^\| (?!word |---)", glossary, re.M)
    assert 0 < len(words) <= MOST_WORDS


def test_the_files_that_contributing_names_exist() -> None:
    named = PATH.findall(CONTRIBUTING)
    assert len(named) > 20
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("config/options.py", "OPTIONS"),
        ("cli/__init__.py", "COMMANDS"),
        ("errnos.py", "TABLE"),
        ("record_attributes.py", "OF_RECORD"),
        ("fakeservice/faults.py", "FAILURES"),
    ],
)
def test_the_tables_that_contributing_names_exist(file: str, name: str) -> None:
    assert f"`{name}`" in CONTRIBUTING
    assert re.search(rf"^{name}\b.*= [({{]", (SOURCE / file).read_text(encoding="utf-8"), re.M)
