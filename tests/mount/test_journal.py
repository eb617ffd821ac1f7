"""The access journal and the crawlers over a real mount."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from phonofs.journal.lines import Line, parse
from phonofs.journal.verification import verify
from tests.support.accounts import flat
from tests.support.calls import calls
from tests.support.doors import PROFILE, served
from tests.support.mounts import files, mounted, phonofs, standing, status_of, until

pytestmark = pytest.mark.fuse


def lines_of(folder: Path, profile: str = "default") -> list[Line]:
    found = []
    for file in sorted((folder / profile).glob("*.jsonl")):
        found += [line for line in map(parse, file.read_bytes().split(b"\n")) if line is not None]
    return found


def opens_of(folder: Path) -> list[Line]:
    return [line for line in lines_of(folder) if line.event == "open"]


@pytest.mark.promise("journal-before-bytes")
def test_who_opened_what_is_there_before_the_bytes_are(tmp_path):
    journal = tmp_path / "journal"
    with standing(flat(1000, 2000)) as service:  # noqa: SIM117
        with mounted(service.url, tmp_path, journal=str(journal)) as mount:
            first, second = files(mount.point)
            assert opens_of(journal) == [], "names and attributes are not opens"
            with first.open("rb") as file:
                [line] = opens_of(journal)
                file.read(300)
            assert (line.result, line.how, line.kind) == ("granted", "mount", "recording")
            assert line.object == os.getxattr(first, "user.phonofs.id").decode()
            assert (line.uid, line.pid) == (os.geteuid(), os.getpid())
            assert line.program == Path("/proc/self/comm").read_text().strip()
            subprocess.run(["cat", second], stdout=subprocess.DEVNULL, check=True)
            until(lambda: lines_of(journal)[-1].event == "close")
            *_, cat, close = lines_of(journal)
            assert (cat.program, close.of, close.bytes_at_least) == ("cat", cat.n, 2000)
            status = status_of(mount)["journal"]
            assert (status["state"], status["last"]) == ("on", close.n)
            assert status["last_hash"] == verify(journal / "default").end.hash
            assert status_of(mount)["opens"]["by_program"]["cat"] == 1
            assert mount.stop() == 0
    assert [line.event for line in lines_of(journal)] == [
        "start", "open", "close", "open", "close", "stop",
    ]  # fmt: skip
    assert not verify(journal / "default").findings
    text = b"".join(file.read_bytes() for file in journal.rglob("*") if file.is_file())
    assert first.name.encode() not in text, "ids, never names"
    assert (journal.stat().st_mode | (journal / "default").stat().st_mode) & 0o777 == 0o700


@pytest.mark.promise("journal-before-bytes")
def test_what_could_not_be_opened_is_there_too(tmp_path):
    with standing(flat(1000, state="ARCHIVED")) as service:
        with mounted(service.url, tmp_path, journal=str(tmp_path / "j")) as mount:  # noqa: SIM117
            with pytest.raises(OSError, match="No data available"):
                files(mount.point)[0].read_bytes()
        assert [line.result for line in opens_of(tmp_path / "j")] == ["archived"]


@pytest.mark.promise("journal-before-bytes")
def test_a_text_is_an_open_of_all_that_it_is_made_of(tmp_path):
    with standing(calls()) as service:  # noqa: SIM117
        with mounted(service.url, tmp_path, journal=str(tmp_path / "j")) as mount:
            day = sorted((mount.point / ".views/by-day").iterdir())[0]
            text = next(path for path in sorted(day.iterdir()) if path.name.endswith(".srt"))
            sources = os.getxattr(text, "user.phonofs.made_from").decode().split()
            assert opens_of(tmp_path / "j") == []
            length = len(text.read_bytes())
            found = opens_of(tmp_path / "j")
            assert [(line.object, line.kind) for line in found] == [
                (source, "subtitles") for source in sources
            ]
            until(lambda: lines_of(tmp_path / "j")[-1].event == "close")
            assert lines_of(tmp_path / "j")[-1].bytes_at_least == length


@pytest.mark.promise("journal-before-bytes")
def test_after_a_kill_each_byte_that_was_given_has_its_line(tmp_path):
    """Readers read while the mount is killed: -9, at any moment."""
    journal = tmp_path / "journal"
    with standing(flat(*[20_000] * 40)) as service:
        for attempt in range(6):
            given: set[str] = set()
            with mounted(service.url, tmp_path, journal=str(journal)) as mount:
                paths = files(mount.point)
                ids = {path: os.getxattr(path, "user.phonofs.id").decode() for path in paths}
                before = len(opens_of(journal))
                threads = [
                    threading.Thread(target=_read, args=(paths[n::4], ids, given)) for n in range(4)
                ]
                for thread in threads:
                    thread.start()
                until(partial(_has, given, 3 + attempt * 5))
                assert mount.stop(signal.SIGKILL) == -signal.SIGKILL
                for thread in threads:
                    thread.join()
            granted = {line.object for line in opens_of(journal)[before:]}
            assert given <= granted
            assert len(given) >= 3
    report = verify(journal / "default")
    assert not report.findings
    assert len(report.gaps) == 5, "each start after a kill says so"


def _has(given: set[str], wanted: int) -> bool:
    return len(given) >= wanted


def _read(paths: list[Path], ids: dict[Path, str], given: set[str]) -> None:
    for path in paths * 50:
        try:
            if path.read_bytes():
                given.add(ids[path])
        except OSError:
            return


@pytest.mark.promise("journal-before-bytes")
def test_what_a_program_opens_through_the_door_is_its_own(tmp_path):
    """Singly, and with several at once; the user and the process are those of the client."""
    journal = tmp_path / "journal"
    with standing(flat(1000, 2000)) as service:  # noqa: SIM117
        with served(service.url, tmp_path, journal=str(journal)) as daemon:
            with daemon.connect() as client:
                names = [entry.name for entry in client.find("")]
                assert names
                opened = client.open(names[0])
                [line] = [line for line in lines_of(journal, PROFILE) if line.event == "open"]
                assert (line.how, line.uid, line.pid) == ("door", os.geteuid(), os.getpid())
                assert opened.size == 1000
                client.read(opened.handle, 0, 1000)
                client.cat((names[0], None, None), (names[1], 0, 10))
            until(lambda: [line.event for line in lines_of(journal, PROFILE)].count("close") == 3)
            found = lines_of(journal, PROFILE)
    opens = [line for line in found if line.event == "open"]
    assert [(line.how, line.pid) for line in opens] == [("door", os.getpid())] * 3
    assert {line.bytes_at_least for line in found if line.event == "close"} <= {1000, 2000, 10}


@pytest.mark.promise("journal-before-bytes")
def test_an_export_is_recorded_with_and_without_a_mount(tmp_path):
    with standing(flat(1000, 2000)) as service:
        with mounted(service.url, tmp_path, journal=str(tmp_path / "j")) as mount:
            dest = str(tmp_path / "first")
            done = phonofs(mount, "export", dest, "2026", "--mount", str(mount.point))
            assert done.returncode == 0, done.stderr
            assert len(opens_of(tmp_path / "j")) == 2
            mount.stop()
            dest = str(tmp_path / "second")
            done = phonofs(mount, "export", dest, "2026", "--profile", "test-journal")
            assert done.returncode == 0, done.stderr
        found = [line for line in lines_of(tmp_path / "j", "test-journal") if line.event == "open"]
    assert [(line.how, line.uid) for line in found] == [("export", os.geteuid())] * 2
    assert not verify(tmp_path / "j/test-journal").findings


def test_a_journal_on_the_mount_or_in_the_cache_is_refused(tmp_path):
    with standing(flat(10)) as service, mounted(service.url, tmp_path) as mount:
        other = tmp_path / "other"
        other.mkdir()
        for folder, why in [
            (other / "j", "lies inside the mount point"),
            (tmp_path / "c", "lies in the cache folder"),
        ]:
            done = phonofs(
                mount, "mount", str(other), PHONOFS_JOURNAL=str(folder),
                PHONOFS_CACHE_DIR=str(tmp_path / "c"),
            )  # fmt: skip
            assert done.returncode in (1, 32)
            assert why in done.stderr
            assert len(done.stderr.splitlines()) == 1


def test_show_and_verify(tmp_path):
    journal = tmp_path / "journal"
    with standing(flat(1000, 2000)) as service:
        with mounted(service.url, tmp_path, journal=str(journal)) as mount:
            first, second = files(mount.point)
            for path in (first, second):
                subprocess.run(["cat", path], stdout=subprocess.DEVNULL, check=True)
            until(lambda: len(lines_of(journal)) == 5)
            shown = phonofs(mount, "journal", "show").stdout
            assert [line.split()[2] for line in shown.splitlines()] == [
                "start", "granted", "close", "granted", "close",
            ]  # fmt: skip
            of_one = phonofs(mount, "journal", "show", "--object", str(second)).stdout
            assert [line.split()[2] for line in of_one.splitlines()] == ["granted", "close"]
            assert "at least 2,000 bytes" in of_one
            with_names = ["journal", "show", "--names", "--mount", str(mount.point)]
            assert str(first) in phonofs(mount, *with_names).stdout
            assert first.name not in shown
            nobody = phonofs(mount, "journal", "show", "--user", "4242").stdout
            assert nobody == ""
            later = phonofs(mount, "journal", "show", "--since", "2999").stdout
            assert later == ""
            done = phonofs(mount, "journal", "verify")
            assert (done.returncode, "the chain is whole" in done.stdout) == (0, True)
        [file] = (journal / "default").glob("*.jsonl")
        file.write_bytes(file.read_bytes().replace(b'"granted"', b'"refused"', 1))
        done = phonofs(mount, "journal", "verify")
        assert (done.returncode, "the chain is broken" in done.stdout) == (1, True)
        environment = {"PHONOFS_JOURNAL": ""}
        done = phonofs(mount, "journal", "show", **environment)
        assert done.returncode == 1


def named(folder: Path, name: str) -> str:
    """Return a program that is called like this: Python, which the kernel knows by that name."""
    program = folder / name
    shutil.copy(Path(sys.executable).resolve(), program)
    return str(program)


READS = "import sys; print([len(open(path, 'rb').read()) for path in sys.argv[1:]])"
READS_IN_A_THREAD = """
import sys, threading
failed = []
def work():
    with open("/proc/thread-self/comm", "w") as file:
        file.write("pool-1")
    for path in sys.argv[1:]:
        try:
            open(path, "rb").read()
        except PermissionError:
            failed.append(path)
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(len(failed))
"""


@pytest.mark.promise("crawlers-open-nothing")
def test_a_crawler_may_look_and_open_nothing(tmp_path):
    with standing(flat(1000, 2000)) as service, mounted(service.url, tmp_path) as mount:
        paths = list(map(str, files(mount.point)))
        crawler = named(tmp_path, "tumblerd")
        look = "import os, sys; print([os.stat(path).st_size for path in sys.argv[1:]])"
        done = subprocess.run([crawler, "-c", look, *paths], capture_output=True, text=True)
        assert (done.returncode, done.stdout.strip()) == (0, "[1000, 2000]"), done.stderr
        done = subprocess.run([crawler, "-c", READS, *paths], capture_output=True, text=True)
        assert "PermissionError" in done.stderr
        done = subprocess.run(
            [crawler, "-c", READS_IN_A_THREAD, *paths], capture_output=True, text=True
        )
        assert done.stdout.strip() == "2", "the name of the process counts, not that of a thread"
        assert service.service.counters.requests["content"] == 0
        assert status_of(mount)["opens"]["refused"] == {"tumblerd": 3}
        assert status_of(mount)["fuse"]["errnos"].get("EACCES") == 3
        reader = named(tmp_path, "reader")
        done = subprocess.run([reader, "-c", READS, *paths], capture_output=True, text=True)
        assert done.stdout.strip() == "[1000, 2000]", done.stderr


@pytest.mark.promise("crawlers-open-nothing")
def test_the_list_of_crawlers_can_be_changed_and_emptied(tmp_path):
    crawler = named(tmp_path, "a-long-program-name")
    with standing(flat(1000)) as service:
        for names, expected in [("a-long-program-name", "EACCES"), ("", "[1000]")]:
            with mounted(service.url, tmp_path, crawlers=names) as mount:
                [path] = map(str, files(mount.point))
                done = subprocess.run([crawler, "-c", READS, path], capture_output=True, text=True)
                refused = f"[Errno {errno.EACCES}]" in done.stderr
                assert ("EACCES" if refused else done.stdout.strip()) == expected
                assert bool(status_of(mount)["opens"]["by_program"]) is False


@pytest.mark.promise("crawlers-open-nothing")
def test_what_a_crawler_was_refused_is_in_the_journal(tmp_path):
    with standing(flat(1000)) as service:  # noqa: SIM117
        with mounted(service.url, tmp_path, journal=str(tmp_path / "j")) as mount:
            [path] = map(str, files(mount.point))
            crawler = named(tmp_path, "tumblerd")
            subprocess.run([crawler, "-c", READS, path], capture_output=True)
            found = [(line.result, line.program) for line in opens_of(tmp_path / "j")]
            assert found == [("refused", "tumblerd")]


def test_metrics_tell_of_the_journal(tmp_path):
    pytest.importorskip("prometheus_client")
    from prometheus_client import core  # noqa: F401

    from phonofs.metrics import Collector

    with standing(flat(1000)) as service:  # noqa: SIM117
        with mounted(service.url, tmp_path, journal=str(tmp_path / "j")) as mount:
            status = json.loads(os.getxattr(mount.point, "user.phonofs.status"))
    families = {family.name for family in Collector(lambda: status).collect()}
    assert {"phonofs_journal_failures", "phonofs_journal_last_line"} <= families
