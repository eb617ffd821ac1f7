"""The program as a whole: help, errors as one sentence, exit statuses."""

import importlib
import subprocess
import sys

import click
import pytest

from phonofs import cli
from phonofs.cli import COMMANDS, group, run
from phonofs.errors import CredentialsRefused, MountFailed, PhonofsError, Unavailable, UsageError


def call(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = run(group, "phonofs", arguments)
    out, err = capsys.readouterr()
    return status, out, err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call("--help", capsys=capsys)
    assert status == 0
    for name, command in COMMANDS.items():
        assert (f"  {name} " in out) is not command.hidden


@pytest.mark.parametrize("name", list(COMMANDS))
def test_the_line_in_help_is_the_first_of_the_commands_own(name: str) -> None:
    module = importlib.import_module(f"phonofs.cli.{COMMANDS[name].module}")
    assert module.command.help
    if not COMMANDS[name].hidden:
        assert module.command.help.splitlines()[0] == COMMANDS[name].help
        assert module.command.name == name


def test_no_command_at_all_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys=capsys)
    assert (status, out) == (1, "")
    assert "Commands:" in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["mont"], "phonofs: there is no command 'mont'; did you mean 'mount'?\n"),
        (["frobnicate"], "phonofs: there is no command 'frobnicate'; see `phonofs --help`\n"),
        (["umount"], "phonofs: missing argument 'MOUNTPOINT'; see `phonofs umount --help`\n"),
        (["umount", "-q"], "phonofs: no such option '-q'; see `phonofs umount --help`\n"),
    ],
)
def test_wrong_usage_is_one_sentence_and_status_1(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*arguments, capsys=capsys) == (1, "", sentence)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("x"), 1),
        (CredentialsRefused("x"), 2),
        (Unavailable("x"), 3),
        (MountFailed("x"), 32),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 1),
    ],
)
def test_an_error_is_one_sentence_with_its_own_status(
    error: BaseException, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def failing() -> None:
        raise error

    assert run(failing, "phonofs", []) == status
    said = capsys.readouterr().err
    assert said.strip() == ("phonofs: x" if isinstance(error, PhonofsError) else "")


def test_a_fault_of_ours_is_one_sentence_too(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def failing() -> None:
        raise ZeroDivisionError("CANARY")

    assert run(failing, "phonofs", []) == 1
    said = capsys.readouterr().err
    assert said.startswith("phonofs: internal fault: ZeroDivisionError")
    assert "CANARY" not in said
    assert said.count("\n") == 1


def test_a_command_gives_its_own_status() -> None:
    @click.command()
    def done() -> int:
        return 7

    assert run(done, "phonofs", []) == 7


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        (["work", "/mnt/calls", "-o", "dev,suid"], True),
        (["work", "/dev/fd/3", "-o", "ro,dev,suid"], True),
        (["demo", "/dev/fd/3", "-o", "ro,dev,suid"], True),
        (["umont", "/mnt/calls"], False),
        (["mount", "/mnt/calls", "-o", "cache_size=0"], False),
        (["work", "calls", "-o", "x"], False),
        (["--help"], False),
        ([], False),
    ],
)
def test_a_call_by_mount_fuse3_is_recognised(arguments: list[str], called: bool) -> None:
    assert cli._called_by_mount(arguments) is called


def test_help_and_umount_start_without_the_heavy_rooms() -> None:
    code = (
        "import sys, phonofs.cli, phonofs.cli.umount\n"
        "heavy = {'trio', 'httpx', 'rich', 'msgspec', 'pyfuse3', 'sqlite3'} & set(sys.modules)\n"
        "sys.exit(' '.join(sorted(heavy)) or 0)"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (outcome.returncode, outcome.stderr) == (0, "")


@pytest.mark.parametrize("module", ["phonofs", "phonofs.cli"])
def test_the_program_runs_as_a_module(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "phonofs" in done.stdout
