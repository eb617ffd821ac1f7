"""What the access journal tells besides opens: searches, exports, and content that was removed."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from phonofs.fakeservice.account import flat_item
from phonofs.journal.verification import verify
from tests.mount.test_journal import lines_of
from tests.support.accounts import NOON_MS, flat
from tests.support.calls import calls
from tests.support.doors import PROFILE, served
from tests.support.mounts import Mount, StandIn, files, mounted, phonofs, standing, status_of, until

pytestmark = pytest.mark.fuse

ANN = ("--agent", "ann lee")


def of_event(folder, event: str, profile: str = "default"):
    return [line for line in lines_of(folder, profile) if line.event == event]


@pytest.mark.promise("journal-more-than-opens")
def test_a_search_is_recorded_with_its_number_of_results_and_without_its_words(tmp_path):
    journal = tmp_path / "journal"
    with standing(calls()) as service:  # noqa: SIM117
        with mounted(service.url, tmp_path, journal=str(journal)) as mount:
            at = ("--mount", str(mount.point))
            found = phonofs(mount, "find", *ANN, *at).stdout.splitlines()
            phonofs(mount, "find", "--agent", "Ann Lee", *at)
            phonofs(mount, "find", "--agent", "Nobody", *at)
            phonofs(mount, "find", *at)
            until(lambda: len(of_event(journal, "search")) == 4)
            first, same, other, all_ = of_event(journal, "search")
            assert found
            assert (first.results, same.results, other.results) == (len(found), len(found), 0)
            assert first.uid == os.geteuid()
            assert first.pid
            assert first.words == same.words != other.words
            assert (len(first.words), all_.words) == (1, [])
            assert all_.results > len(found)
            shown = phonofs(mount, "journal", "show", "--word", "Ann Lee").stdout.splitlines()
            assert [line.split()[1] for line in shown] == [str(first.n), str(same.n)]
            assert f"{len(found)} results" in shown[0]
            assert phonofs(mount, "journal", "show", "--word", "Bob Ray").stdout == ""
            mine = phonofs(mount, "journal", "show", "--user", str(os.geteuid())).stdout
            assert mine.count(" search ") == 4
    text = b"".join(file.read_bytes() for file in journal.rglob("*") if file.is_file())
    assert b"ann lee" not in text.lower()
    assert (journal / "default/search.key").stat().st_mode & 0o777 == 0o600
    assert not verify(journal / "default").findings


@pytest.mark.promise("journal-more-than-opens")
def test_a_search_is_recorded_by_a_daemon_too_and_with_the_same_hashes_after_a_restart(tmp_path):
    journal = tmp_path / "journal"
    with standing(calls()) as service:
        for _ in range(2):
            with served(service.url, tmp_path, journal=str(journal)) as daemon:
                done = phonofs(daemon, "find", *ANN, "--profile", PROFILE)
                assert done.returncode == 0, done.stderr
                assert daemon.stop() == 0
    first, second = of_event(journal, "search", PROFILE)
    assert first.words == second.words
    assert first.results == second.results > 0


@pytest.mark.promise("journal-more-than-opens")
def test_an_export_is_recorded_as_it_begins_and_ends(tmp_path):
    journal = tmp_path / "journal"
    with standing(flat(1000, 2000)) as service:
        with mounted(service.url, tmp_path, journal=str(journal)) as mount:
            chosen = ("2026", "--mount", str(mount.point))
            for _ in range(2):
                done = phonofs(mount, "export", str(tmp_path / "first"), *chosen)
                assert done.returncode == 0, done.stderr
            mount.stop()
        begun, ended, again, kept = of_event(journal, "export")
        first_open = next(line for line in lines_of(journal) if line.event == "open")
        assert (begun.result, begun.paths, begun.uid) == ("begun", 1, os.geteuid())
        assert begun.n < first_open.n
        assert (ended.result, ended.of, ended.pid) == ("ended", begun.n, begun.pid)
        assert (ended.objects, ended.copied, ended.missing) == (2, 2, 0)
        assert (kept.of, kept.objects, kept.copied) == (again.n, 2, 0)
        done = phonofs(mount, "export", str(tmp_path / "second"), "--profile", "test-journal")
        assert done.returncode == 0, done.stderr
        begun, ended = of_event(journal, "export", "test-journal")
        assert (begun.words, ended.of, ended.objects) == ([], begun.n, 2)
        shown = phonofs(mount, "journal", "show", "test-journal").stdout
        assert " export begun " in shown
        assert "2 objects, 2 copied, 0 missing" in shown
    assert not verify(journal / "test-journal").findings


@pytest.mark.promise("journal-more-than-opens")
def test_an_export_that_is_interrupted_has_stopped(tmp_path):
    journal = tmp_path / "journal"
    with standing(flat(*[20_000] * 40)) as stand_in:  # noqa: SIM117
        with mounted(stand_in.url, tmp_path, journal=str(journal)) as mount:
            fault = stand_in.faults({"kind": "content", "skip": 10, "fail": "stall"})
            words = [sys.executable, "-m", "phonofs.cli", "export", str(tmp_path / "out")]
            process = subprocess.Popen(
                [*words, "--mount", str(mount.point)],
                env=mount.environment,
                stderr=subprocess.DEVNULL,
            )
            until(lambda: sum(fault.fired.values()) > 0)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
            stand_in.faults()
            mount.stop()
    begun, stopped = of_event(journal, "export")
    assert (stopped.result, stopped.of) == ("stopped", begun.n)
    assert 0 < stopped.objects <= 40


@pytest.mark.promise("journal-more-than-opens")
def test_content_that_was_withdrawn_or_replaced_is_recorded_as_it_leaves_the_disk(tmp_path):
    journal = tmp_path / "journal"
    account = flat(1000, 2000)
    account.put(flat_item("00000002", 3000, NOON_MS, state="ARCHIVED"))
    options = {"journal": str(journal), "poll_interval": "0.2s"}
    with standing(account) as stand_in:  # noqa: SIM117
        with mounted(stand_in.url, tmp_path, **options) as mount:
            for path in files(mount.point):
                with contextlib.suppress(OSError):  # one is archived
                    path.read_bytes()
            until(lambda: cached(mount) == 2)
            withdraw(account, stand_in, "00000000", "00000002", replace="00000001")
            until(lambda: len(of_event(journal, "purged")) == 2)
            found = {line.object: line for line in of_event(journal, "purged")}
            assert found["00000000"].reason == "withdrawn"
            assert found["00000001"].reason == "replaced"
            assert all(line.freed_bytes > 0 for line in found.values())
            shown = phonofs(mount, "journal", "show", "--object", "00000000").stdout
            assert [line.split()[2] for line in shown.splitlines()] == [
                "granted", "close", "purged",
            ]  # fmt: skip
            mount.stop()
    assert not verify(journal / "default").findings
    assert "00000002" not in {line.object for line in of_event(journal, "purged")}


def withdraw(account, stand_in: StandIn, *ids: str, replace: str) -> None:
    now = stand_in.service.now_ms()
    for number, id in enumerate(ids, 1):
        account.put(flat_item(id, 1000, NOON_MS, updated_ms=now + 1000 * number, state="REVOKED"))
    account.put(flat_item(replace, 2500, NOON_MS + 60_000, updated_ms=now + 5000))


def cached(mount: Mount) -> int:
    """Return how many objects have content on disk."""
    return status_of(mount)["cache"]["objects"]
