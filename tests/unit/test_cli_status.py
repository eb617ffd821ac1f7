"""The status page for people."""

import pytest
from rich.console import Console

from phonofs.cli.status import page, rows, shown

STATUS = {
    "pid": 17,
    "offline": False,
    "token": {"life_s": 1799.0, "refreshes": 3},
    "cache": {"used_bytes": 3 * 2**30, "rate_bytes_per_s": 1536, "hit_rate": 0.98765},
    "errors": [],
    "regions": ["uk", "us-east"],
    "since_ms": 0,
    "last": "bad\x1b[31mname",
}


def test_every_fact_is_a_row_and_what_is_empty_is_not() -> None:
    got = dict(rows(STATUS))
    assert got["pid"] == "17"
    assert got["offline"] == "no"
    assert got["token"] == ""
    assert got["  life"] == "29 min 59 s"
    assert got["  used"] == "3.0 GiB"
    assert got["  rate"] == "1.5 KiB/s"
    assert got["  hit rate"] == "0.988"
    assert got["regions"] == "uk, us-east"
    assert "errors" not in got


def test_a_page_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(width=100, force_terminal=False)
    console.print(page("/mnt/calls", STATUS))
    out = capsys.readouterr().out
    assert "/mnt/calls" in out
    assert "\x1b" not in out
    assert "bad?[31mname" in out


def test_a_list_of_facts_is_one_line() -> None:
    assert shown("last", [{"a": 1, "b_s": 2.0}]) == "a=1 b_s=2.0 s"
