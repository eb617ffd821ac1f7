"""What the log may hold, and how much of it."""

import logging
import subprocess
import sys

import pytest

from phonofs.process import logging_setup as logs


@pytest.mark.parametrize(
    ("text", "canary"),
    [
        ("Authorization: Bearer abc.DEF-123", "abc.DEF-123"),
        ("sent Basic a2V5OnNlY3JldA== along", "a2V5OnNlY3JldA"),
        ("GET https://store.example/x.mp3?X-Amz-Signature=5f5f", "5f5f"),
        ('{"access_token": "tok3n", "expires_in": "1"}', "tok3n"),
        ("secret=hunter2", "hunter2"),
        ('secret_key = "hunter2"', "hunter2"),
        ("GET /calls/x.mp3?X-Amz-Date=1&X-Amz-Signature=5f5f&a=b", "5f5f"),
        ("Credential=A/1/r/s3/aws4_request, SignedHeaders=host, Signature=5f5f", "5f5f"),
        ("proxy https://user:pw@proxy.example:3128", "pw@"),
    ],
)
def test_secrets_do_not_reach_the_log(text, canary):
    """Tokens, signed queries, secrets and passwords are replaced."""
    assert canary not in logs.redact(text)


def test_control_characters_are_escaped():
    """A caller's name cannot drive a terminal or forge a line's beginning."""
    assert logs.redact("a\x1b[2Jb\u202ec") == "a\\x1b[2Jb\\x202ec"


def test_the_query_goes_and_the_path_stays():
    """A redacted URL still says which object it was about."""
    text = logs.redact("https://store.example/a/b?sig=1 failed")
    assert text == "https://store.example/a/b?[redacted] failed"


def test_a_storm_is_cut_and_counted(monkeypatch):
    """More lines a second than a person reads are dropped, and their number is said."""
    now = [0.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    limit = logs.RateLimit()
    record = logging.LogRecord("phonofs", logging.INFO, "", 0, "x %d", (1,), None)
    assert sum(limit.filter(record) for _ in range(200)) == logs.LINES_PER_S
    now[0] = 1.0
    assert limit.filter(record)
    assert record.getMessage() == "x 1 (150 lines were left out before)"


def test_a_line_that_cannot_be_written_is_left_out():
    """A full disk under the log is neither an error nor a traceback on stderr."""
    code = (
        "import logging, pathlib; from phonofs.process import logging_setup as logs\n"
        "logs.set_up('info', pathlib.Path('/dev/full'))()\n"
        "logging.getLogger('phonofs').warning('lost')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_more_lines_are_held_than_said(tmp_path):
    """A mount that starts for hours without its service must not keep them all."""
    code = (
        "import logging; from phonofs.process import logging_setup as logs\n"
        "release = logs.set_up('info', None)\n"
        "log = logging.getLogger('phonofs')\n"
        "for n in range(logs.HELD_LINES): log.warning('line %d', n)\n"
        "print('held', flush=True); input()\n"
        "log.warning('one more')\n"
        "print('written', flush=True); input()\n"
    )
    with (tmp_path / "err").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err
        )
    try:
        assert process.stdout.readline() == b"held\n"
        assert (tmp_path / "err").read_bytes() == b""
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"written\n"
        assert b"line 0" in (tmp_path / "err").read_bytes()
    finally:
        process.kill()
        process.communicate()
