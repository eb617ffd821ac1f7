"""The status page for people."""

from typing import Any

import pytest
from rich.console import Console

from phonofs.cli.status import table
from phonofs.cli.status_page import BAR_ASCII, BAR_WIDTH, all_rows, format_gauge, overview

NOW_S = 1_700_000_000.0

GAUGES = {
    "pid": 17,
    "offline": False,
    "token": {"life_s": 1799.0, "refreshes": 3},
    "cache": {"used_bytes": 3 * 2**30, "rate_bytes_per_s": 1536, "hit_rate": 0.98765},
    "errors": [],
    "regions": ["uk", "us-east"],
    "since_ms": 0,
    "last": "bad\x1b[31mname",
}


def test_every_gauge_is_a_row_and_what_is_empty_is_not() -> None:
    got = dict(all_rows(GAUGES))
    assert got["pid"] == "17"
    assert got["offline"] == "no"
    assert got["token"] == ""
    assert got["  life"] == "29 min 59 s"
    assert got["  used"] == "3.0 GiB"
    assert got["  rate"] == "1.5 KiB/s"
    assert got["  hit rate"] == "0.988"
    assert got["regions"] == "uk, us-east"
    assert "errors" not in got


def test_two_gauges_that_differ_in_their_unit_have_different_labels() -> None:
    rows = list(all_rows({"held": 3, "held_bytes": 2048, "open_bytes": 1024}))
    assert rows == [("held", "3"), ("held bytes", "2.0 KiB"), ("open", "1.0 KiB")]


def test_a_page_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    status = healthy()
    status["fuse"] |= {"last_error": "bad\x1b[31mname"}
    console = Console(width=100, force_terminal=False)
    console.print(table("/mnt/calls", all_rows(GAUGES)))
    console.print(table("/mnt/\x1b[1mcalls", overview(status, NOW_S)))
    out = capsys.readouterr().out
    assert "/mnt/calls" in out
    assert "\x1b" not in out
    assert out.count("bad?[31mname") == 2


def test_a_list_of_gauges_is_one_line() -> None:
    assert format_gauge("last", [{"a": 1, "b_s": 2.0}]) == "a=1 b_s=2.0 s"


def healthy() -> dict[str, Any]:
    """The status of a mount with nothing wrong, as far as the short form reads it."""
    return {
        "version": "0.1.0",
        "pid": 17,
        "profile": "work",
        "mountpoint": "/mnt/calls",
        "condition": "mounted, 1,200 objects known",
        "uptime_s": 200.0,
        "control_error": "",
        "catalogue": {
            "objects": 1200,
            "bytes": 3 * 2**30,
            "regions": ["uk", "us-east"],
            "followed": {
                "uk": {"polled_at": NOW_S - 30, "failures": 0},
                "us-east": {"polled_at": NOW_S - 10, "failures": 0},
            },
        },
        "restores": {"pending": 0, "oldest_at": None},
        "service": {
            "received_bytes": 2048,
            "slots": {"in_use": 0, "waiting": 0},
            "paused_s": 0.0,
            "token": {"valid": True, "life_s": 1799.0, "error": ""},
        },
        "cache": {"state": "on", "disk_bytes": 2**29, "cap_bytes": 2**30, "set_aside_bytes": 0},
        "reader": {"hits": 9, "misses": 1, "served_bytes": 4096},
        "fuse": {"open_files": 0, "waiting": 0, "last_error": "", "last_error_at": None},
    }


def shown(status: dict[str, Any], before: dict[str, Any] | None = None) -> dict[str, str]:
    return dict(overview(status, NOW_S, before))


def test_the_short_form_of_a_mount_with_nothing_wrong() -> None:
    rows = shown(healthy())
    assert "work" in rows["mounted"]
    assert "3 min 20 s" in rows["mounted"]
    assert "work" in shown(healthy() | {"mountpoint": ""})["serving"]
    assert rows["condition"] == "mounted, 1,200 objects known"
    assert "29 min 59 s" in rows["token"]
    assert rows["known"] == "1,200 objects, 3.0 GiB, in uk, us-east"
    assert "30 s ago" in rows["changes"], "that of the region that was asked longest ago"
    assert "512 MiB of 1.0 GiB" in rows["cache"]
    assert rows["hit rate"] == "90% of 10 reads"
    assert "2.0 KiB from" in rows["traffic"]
    assert rows["now"] == "idle"
    assert rows["last error"] == "none"
    assert not {"restores", "commands"} & rows.keys()


def test_the_short_form_says_that_a_429_has_slowed_it_down() -> None:
    status = healthy()
    status["service"]["rate"] = {"max_per_s": None, "limit_per_s": 8.0, "waiting": 0}
    assert shown(status)["now"] == "slowed down to 8/s"
    status["service"]["rate"] = {"max_per_s": 8.0, "limit_per_s": 8.0, "waiting": 0}
    assert shown(status)["now"] == "idle"


def test_the_short_form_says_what_is_wrong() -> None:
    status = healthy()
    status["control_error"] = "no such folder"
    status["catalogue"]["followed"]["uk"]["failures"] = 3
    status["restores"] = {"pending": 2, "oldest_at": NOW_S - 7200}
    status["service"] |= {"paused_s": 20.0, "slots": {"in_use": 2, "waiting": 1}}
    status["service"]["token"] = {"valid": False, "life_s": 0.0, "error": "the key is refused"}
    status["cache"] |= {"state": "off", "reason": "the disk fails"}
    status["fuse"] = {
        "open_files": 3,
        "waiting": 1,
        "last_error": "read: gone",
        "last_error_at": NOW_S - 60,
    }
    status["service"]["rate"] = {"max_per_s": 5.0, "limit_per_s": 0.25, "waiting": 2}
    rows = shown(status)
    assert "the key is refused" in rows["token"]
    assert "uk" in rows["changes"]
    assert "3 failures" in rows["changes"]
    assert "us-east" not in rows["changes"]
    assert "the disk fails" in rows["cache"]
    assert "2 objects" in rows["restores"]
    assert "2 h 00 min ago" in rows["restores"]
    for fact in ("3 open files", "2 requests", "1 queued request", "1 waiting operation", "20 s"):
        assert fact in rows["now"]
    assert "2 requests waiting for the rate of 15/min" in rows["now"]
    assert "no such folder" in rows["commands"]
    assert rows["last error"] == "1 min 00 s ago: read: gone"


def test_where_the_views_are_is_said_since_no_listing_shows_them() -> None:
    status = healthy() | {"mountpoint": "/srv/calls", "views": {"name": ".views"}}
    assert shown(status)["views"] == "/srv/calls/*/.views"
    status["catalogue"]["regions"] = ["uk"]
    assert shown(status)["views"] == "/srv/calls/.views"
    status["views"] = {"name": ""}
    assert "views" not in shown(status)


def test_the_journal_and_the_crawlers_are_said_if_there_is_something_to_say() -> None:
    status = healthy()
    assert not {"journal", "crawlers"} & dict(overview(status, NOW_S)).keys()
    status["journal"] = {"state": "on", "file": "/j/2026-11.jsonl", "last": 1234, "error": ""}
    status["opens"] = {"by_program": {"vlc": 3}, "refused": {"tumblerd": 1200}}
    rows = dict(overview(status, NOW_S))
    assert rows["journal"] == "/j/2026-11.jsonl, line 1,234"
    assert rows["crawlers"] == "opens refused: tumblerd 1,200"
    status["journal"] |= {"state": "failing", "error": "No space left on device"}
    assert dict(overview(status, NOW_S))["journal"] == "cannot be written: No space left on device"


def test_what_the_indexer_has_is_said_with_what_is_known() -> None:
    status = healthy() | {"index": {"state": "done", "day": "", "error": "", "texts": 1300}}
    assert shown(status)["known"].endswith("; 1,300 texts")
    status["index"] = {"state": "waiting", "day": "", "error": "away", "texts": 0}
    assert shown(status)["known"].endswith("; indexing, away")


@pytest.mark.parametrize(
    ("used", "filled"), [(0, 0), (1, 1), (2**29, BAR_WIDTH // 2), (2**31, BAR_WIDTH)]
)
def test_the_cache_is_a_bar_up_to_its_cap(used: int, filled: int) -> None:
    status = healthy()
    status["cache"]["disk_bytes"] = used
    drawn = dict(overview(status, NOW_S, bar=BAR_ASCII))["cache"].partition(" ")[0]
    assert drawn == "#" * filled + "-" * (BAR_WIDTH - filled)


def test_what_a_person_watches_is_between_two_looks() -> None:
    before, now = healthy(), healthy()
    now["uptime_s"] = 202.0
    now["service"]["received_bytes"] += 2048
    now["reader"] = {"hits": 12, "misses": 2, "served_bytes": 8192}
    rows = shown(now, before)
    assert rows["hit rate"] == "75% of 4 reads"
    assert rows["traffic"].startswith("1.0 KiB/s")
    assert "2.0 KiB/s" in rows["traffic"]


def test_a_mount_nobody_reads_has_the_hit_rate_of_all_reads() -> None:
    assert shown(healthy(), healthy())["hit rate"] == "90% of 10 reads"


def test_a_status_without_its_gauges_is_shown_all_the_same() -> None:
    """Of a mount of another version, or one that only begins."""
    rows = shown({})
    assert rows["token"] == "none"
    assert rows["changes"] == "not checked yet"
    assert rows["hit rate"] == "no reads yet"
    assert len(rows) <= 12
