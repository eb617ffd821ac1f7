"""Every option, command, exit status and errno is documented, and nothing that is not there."""

import ast
import importlib.util
import inspect
import os
import re
import shutil
import subprocess
import tomllib
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from phonofs import attributes
from phonofs.cli import COMMANDS, group
from phonofs.cli.report import EXIT_IN_PART
from phonofs.config import OPTIONS
from phonofs.errors import CredentialsRefused, MountFailed, Unavailable, UsageError
from phonofs.fakeservice.faults import FAILURES, KINDS
from phonofs.fakeservice.options import Options
from phonofs.record_attributes import OF_RECORD
from tests.fault.scene import fast, living, standing
from tests.support.accounts import flat

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def rows(*header: str) -> list[list[str]]:
    """Return the rows of all tables in the README that have this header."""
    tables = README.split("| " + " | ".join(header) + " |\n")[1:]
    lines = [line for table in tables for line in table.split("\n\n")[0].splitlines()[1:]]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def make_man() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_man", ROOT / "contrib/dev/make_man.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_has_every_option_with_its_default_and_meaning() -> None:
    """Common and advanced options have a table each."""
    documented = [
        (name.strip("`"), default.strip("`"), meaning)
        for name, default, meaning in rows("name", "default", "meaning")
    ]
    declared = [(each.name, each.shown_default, each.help) for each in OPTIONS]
    assert sorted(documented) == sorted(declared)


def test_the_readme_has_every_command_and_no_other() -> None:
    documented = {row[0].split()[1].strip("`") for row in rows("command", "does")}
    assert documented == {name for name, command in COMMANDS.items() if not command.hidden}


def test_every_command_named_in_the_readme_exists() -> None:
    named = set(re.findall(r"(?<![/\w])phonofs ([a-z][a-z-]+)\b", README))
    prose = {"mounts", "reports"}
    assert named - prose <= set(COMMANDS)


def test_help_and_manual_list_what_the_demo_takes() -> None:
    """Each option of the stand-in, each failure of a fault plan, and the kinds of requests."""
    help = CliRunner().invoke(group, ["demo", "--help"]).stdout
    manual = (ROOT / "man/phonofs.1").read_text(encoding="utf-8").replace("\\-", "-")
    for option in fields(Options):
        assert f"  {option.name}=" in help
        assert f'It Li "{option.name}=' in manual
    for failure in FAILURES:
        assert re.search(rf"^  {failure}( |$)", help, re.MULTILINE)
        assert re.search(rf'^.It Li "{failure}[ "]', manual, re.MULTILINE)
    assert all(kind in help for kind in KINDS)


def test_the_readme_says_every_exit_status() -> None:
    sentence = " ".join(re.search(r"Exit status:[^#]*?\n\n", README)[0].split())  # type: ignore[index]
    said = {int(number) for number in re.findall(r"\b(\d+) [a-z]", sentence)}
    errors = (UsageError, CredentialsRefused, Unavailable, MountFailed)
    assert said == {0, EXIT_IN_PART, *(error.exit_status for error in errors)}


def test_every_errno_a_reader_may_meet_is_documented() -> None:
    """Those of the one table, but for what no reader of files gets."""
    errnos = importlib.import_module("phonofs.errnos")
    source = Path(errnos.__file__ or "").read_text()
    given = set(re.findall(r"errno\.(E[A-Z]+)", source)) - {"ENOTDIR", "EISDIR", "EINTR"}
    documented = {row[0].split()[0].strip("`") for row in rows("error", "why", "what to do")}
    assert given <= documented
    assert documented == {name for name, _ in make_man().ERRORS}


@fast
async def test_the_manual_has_every_section_of_the_status(tmp_path: Path) -> None:
    """And nothing that the status does not have."""
    names = ", ".join(name for name, _ in make_man().STATUS)
    async with standing(flat(10)) as service, living(service, tmp_path, index="texts") as scene:
        assert {name.split(".")[0] for name in names.split(", ")} == {*scene.app.status.document()}


def messages() -> str:
    """Return the texts in the code, one a line, without documentation; values in them are gone."""
    lines: list[str] = []
    for path in (ROOT / "src").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        inside = {
            id(part)
            for node in ast.walk(tree)
            if isinstance(node, ast.JoinedStr)
            for part in node.values
        }
        for node in ast.walk(tree):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            if id(node) not in documentation | inside:
                texts = [part.value for part in parts if isinstance(part, ast.Constant)]
                lines.append("".join(text for text in texts if isinstance(text, str)))
    return "\n".join(lines).replace("`", "")


def test_every_message_in_the_readme_is_one_of_the_code() -> None:
    """Its last words; a path, an ellipsis and the words before may stand for a value."""
    known = messages()
    named = [row[0] for row in rows("message", "what to do") if not row[0].endswith("from pip")]
    pieces = [piece for name in named for piece in re.split(r"…|,|/[\w/.]+ ", name.split("`")[1])]
    ends = [" ".join(piece.split()[-3:]) for piece in pieces if piece.strip()]
    assert len(ends) > 10
    assert [end for end in ends if end not in known] == []


def test_the_manual_has_every_extended_attribute_and_no_other() -> None:
    named = {name for names, _ in make_man().ATTRIBUTES for name in names.split(", ")}
    by_name = {
        attributes.STATUS_ATTRIBUTE,
        attributes.JSON_ATTRIBUTE,
        attributes.KNOWN_ATTRIBUTE,
        attributes.PATH_ATTRIBUTE,
        attributes.CACHED_ATTRIBUTE,
        attributes.MADE_FROM_ATTRIBUTE,
    }
    assert named == {*OF_RECORD, *by_name, f"{attributes.TAG_PREFIX}KEY"}


def test_the_manual_has_every_option_of_the_file_system_for_programs() -> None:
    filesystem = importlib.import_module("phonofs.spec.filesystem").PhonofsFileSystem
    taken = inspect.signature(filesystem.__init__).parameters.keys() - {"self", "others"}
    documented = [name for name, _ in make_man().PROGRAMS]
    assert documented == [*importlib.import_module("phonofs.spec.options").OPTION_NAMES]
    assert {*documented} == taken
    page = (ROOT / "contrib/docs/programs.md").read_text(encoding="utf-8")
    assert all(f"`{name}" in page for name in documented)


def test_the_two_commands_of_the_readme_are_there() -> None:
    for name in ("contrib/demo", "contrib/test"):
        assert f"\n./{name}\n" in README
        assert os.access(ROOT / name, os.X_OK)


DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob(".github/*.md"), *ROOT.glob("contrib/**/*.md")]


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_links_of_the_documents_lead_somewhere(path: Path) -> None:
    """Relative links lead to a file that exists and, with an anchor, to one of its headings."""
    for target, wanted in re.findall(
        r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", path.read_text(encoding="utf-8")
    ):
        linked = path.parent / target if target else path
        assert linked.exists(), target
        if wanted:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.M)
            assert wanted in map(anchor, headings), f"{target}#{wanted}"


@pytest.mark.parametrize("name", ["ARCHITECTURE", "SEMANTICS", "SECURITY"])
def test_an_old_link_to_a_document_leads_on(name: str) -> None:
    """Links from outside name the places where the documents were before contrib/docs."""
    text = (ROOT / f"contrib/{name}.md").read_text(encoding="utf-8")
    assert f"(docs/{name.lower()}.md)" in text


@pytest.mark.parametrize("name", ["phonofs.1", "phonofs.toml.5", "mount.phonofs.8"])
def test_the_manual_is_what_the_tables_say(name: str) -> None:
    """Otherwise: python contrib/dev/make_man.py."""
    assert (ROOT / "man" / name).read_text(encoding="utf-8") == make_man().page(name)


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
def test_the_manual_is_well_formed() -> None:
    pages = sorted(str(path) for path in (ROOT / "man").iterdir())
    outcome = subprocess.run(
        ["mandoc", "-Tlint", "-Wwarning", *pages], capture_output=True, text=True, check=False
    )
    assert outcome.stdout == ""


def test_what_the_tests_need_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["dependency-groups"]["dev"] + project["project"]["dependencies"]
    for extra in project["project"]["optional-dependencies"].values():
        wanted += extra
    text = (ROOT / "contrib/dev/requirements-dev.txt").read_text()
    entries = re.findall(
        r"^([a-z0-9.-]+)==\S+((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", text, re.M
    )
    pinned = {name for name, _ in entries}
    assert len(pinned) == len(re.findall(r"^[^ #\n]", text, re.M)), "one has no hash"
    names = {re.match(r"[A-Za-z0-9_-]+", each)[0].lower() for each in wanted}  # type: ignore[index]
    assert names <= pinned
