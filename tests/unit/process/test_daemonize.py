"""Going to the background: the status is that of the readiness, the group that of the caller."""

import os
import subprocess
import sys

CODE = """
import os, sys
from phonofs.process.daemonize import detach
from phonofs.cli.report import report
from phonofs.errors import UsageError

def work(ready):
    group = os.getpgid(0)
    if "fail" in sys.argv:
        raise UsageError("no")
    at_start = group == int(sys.argv[1])
    ready("a note")
    os.write(int(sys.argv[2]), f"{at_start} {os.getpgid(0) == os.getpid()}".encode())

status = detach(work, report=report, keep=[int(sys.argv[2])])
sys.exit(status)
"""


def run(*words: str) -> tuple[subprocess.CompletedProcess[str], str]:
    read_end, write_end = os.pipe()
    try:
        outcome = subprocess.run(
            [sys.executable, "-c", CODE, str(os.getpgid(0)), str(write_end), *words],
            capture_output=True,
            text=True,
            pass_fds=[write_end],
            check=False,
        )
        os.close(write_end)
        with os.fdopen(read_end) as pipe:
            return outcome, pipe.read()
    except BaseException:
        os.close(read_end)
        raise


def test_it_leaves_the_callers_process_group_only_once_it_is_mounted() -> None:
    """autofs lets only the group of systemd through to a mount point that is being mounted."""
    outcome, said = run()
    assert (outcome.returncode, outcome.stderr) == (0, "phonofs: a note\n")
    assert said == "True True"


def test_what_fails_before_is_one_sentence_and_a_status() -> None:
    """Those of the error."""
    outcome, said = run("fail")
    assert (outcome.returncode, outcome.stderr, said) == (1, "phonofs: no\n", "")


def test_no_core_and_no_look_into_the_memory() -> None:
    """RLIMIT_CORE 0, and not dumpable: the /proc files of the process are root's."""
    code = (
        "import os, resource; from phonofs.process.hardening import keep_secrets_in_memory;"
        "keep_secrets_in_memory();"
        "import ctypes; print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3))"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert outcome.stdout == "(0, 0) 0\n"
