"""The status page for people."""

import pytest
from rich.console import Console

from phonofs.cli.status import page, rows, shown, summary

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


def look(uptime_s: float, received: int, served: int, hits: int, misses: int) -> dict[str, object]:
    return {
        "uptime_s": uptime_s,
        "catalogue": {"followed": {"uk": {"polled_at": 970.0}, "us-east": {"polled_at": 990.0}}},
        "service": {
            "received_bytes": received,
            "token": {"life_s": 100.0},
            "slots": {"in_use": 3},
        },
        "reader": {"served_bytes": served, "hits": hits, "misses": misses},
        "fuse": {"open_files": 2, "last_error": "read: gone"},
    }


def test_what_a_person_watches_is_between_two_looks() -> None:
    told = summary(look(10, 0, 0, 5, 5), look(12, 2048, 4096, 8, 6), 1000.0)
    assert told == {
        "from_service_bytes_per_s": 1024.0,
        "to_readers_bytes_per_s": 2048.0,
        "hit_rate": "75%",
        "token_life_s": 100.0,
        "catalogue_age_s": 30.0,
        "open_files": 2,
        "transfers": 3,
        "last_error": "read: gone",
    }
    assert dict(rows(told))["from service"] == "1.0 KiB/s"


def test_a_mount_nobody_reads_has_the_hit_rate_of_all_reads() -> None:
    same = look(10, 0, 0, 9, 1)
    assert summary(same, same, 1000.0)["hit_rate"] == "90%"
    assert summary({}, {}, 1000.0)["hit_rate"] == ""
    assert summary({}, {}, 1000.0)["catalogue_age_s"] is None
