"""Every promise and every line of the threat model is held by tests that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SEMANTICS = (ROOT / "contrib/docs/semantics.md").read_text(encoding="utf-8")
SECURITY = (ROOT / "contrib/docs/security.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def promises() -> dict[str, str]:
    """Name of a promise to what stands below its heading."""
    parts = re.split(r"^### (.+)$", SEMANTICS.split("## What is not promised")[0], flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def names_in(path: Path) -> set[str]:
    """Functions at the top, and names bound there (a state machine's TestCase)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for node in tree.body:
        if isinstance(node, ast.Assign):
            names |= {each.id for each in node.targets if isinstance(each, ast.Name)}
    return names


@pytest.mark.parametrize("name", promises())
def test_every_promise_is_held_by_a_test(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9-]+", name), "a promise has a plain name that stays"
    assert NAMED.findall(promises()[name])


def marked_promises() -> dict[str, set[str]]:
    """Name of a promise to the tests that are marked with it."""
    marked: dict[str, set[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                test, marks = node.name, node.decorator_list
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                test, marks = ast.unparse(node.targets[0]), [node.value.func]
            else:
                continue
            for mark in marks:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.promise":
                    for name in mark.args:
                        test_id = f"{path.relative_to(ROOT)}::{test}"
                        marked.setdefault(ast.literal_eval(name), set()).add(test_id)
    return marked


def test_the_marks_of_the_tests_are_the_list_under_each_promise() -> None:
    listed = {
        name: {f"{path}::{test}" for path, test in NAMED.findall(text)}
        for name, text in promises().items()
    }
    assert marked_promises() == listed


def test_no_promise_is_made_twice() -> None:
    headings = re.findall(r"^### (.+)$", SEMANTICS, flags=re.M)
    assert len(headings) == len(set(headings)) == len(promises())


def test_three_tenets_come_first() -> None:
    assert re.findall(r"^(\d)\. \*\*", SEMANTICS.split("\n## ")[0], flags=re.M) == ["1", "2", "3"]


@pytest.mark.parametrize("text", [SEMANTICS, SECURITY], ids=["SEMANTICS", "SECURITY"])
def test_the_named_tests_exist(text: str) -> None:
    missing = [
        f"{path}::{name}"
        for path, name in NAMED.findall(text)
        if not (ROOT / path).is_file() or name not in names_in(ROOT / path)
    ]
    assert missing == []


def test_every_threat_is_met_by_a_test() -> None:
    rows = [line for line in SECURITY.splitlines() if line.startswith("| ")]
    lines = [row for row in rows if not row.startswith(("| what", "| ---"))]
    assert len(lines) > 20
    assert [row for row in lines if not NAMED.search(row)] == []
