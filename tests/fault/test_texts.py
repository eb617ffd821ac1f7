"""Sizes and bytes of texts while their sources change and the service fails, read by others' tools.

A size that is told is that of the bytes that a reader gets, or there is an error; never 0, never a
part of a text.
"""

import contextlib
import os
import random
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from phonofs.fakeservice.account import Account, change
from phonofs.fakeservice.responses import Answer, Request
from phonofs.fakeservice.routes import routed
from phonofs.texts import forms, render
from tests.fault.test_clients import free_port, listens, run, smbd
from tests.fault.tools import needs
from tests.support.accounts import NOON_MS
from tests.support.calls import call, calls, text, transcript_json
from tests.support.counted_service import Service
from tests.support.mounts import mounted, standing, until

pytestmark = pytest.mark.fuse

DAY = ".views/by-day/2026-03-02"
CHANGES = 100


def names_below(folder: Path) -> list[Path]:
    """Return the texts by their names alone, without a stat."""
    return sorted(
        Path(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if name.endswith((".txt", ".srt")) and ".agentnotes." not in name
    )


class Versions:
    """The conversations that the calls of two agents have had, as bytes, by the call's number."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.of: dict[int, set[bytes]] = {}
        self.newest: dict[int, bytes] = {}
        self._changes = 0

    def note(self, number: int) -> None:
        """Add the conversation that the service has now."""
        said = []
        agent = self.account.item("us-east", f"{number:08d}-0").tags["agentName"]
        for side, name in ((1, agent), (2, f"Caller {number}")):
            content = self.account.item("us-east", f"{number:08d}-{side}").content
            said.append([each._replace(speaker=name)
                         for each in forms.utterances(content.read(0, 1 << 20)) or []])  # fmt: skip
        self.newest[number] = render.text_file(forms.merged(said))
        self.of.setdefault(number, set()).add(self.newest[number])

    def change(self, number: int, now_ms: int, words: str) -> None:
        """Give a call another transcript."""
        self._changes += 1
        content = text(transcript_json(words, speaker="owner"))
        at_ms = now_ms // 1000 * 1000 + self._changes
        change(self.account, "us-east", f"{number:08d}-1", at_ms, content=content)
        self.note(number)


def number_of(path: Path) -> int:
    return int(path.name.partition(".")[0].rpartition("_")[2])


def read(path: Path) -> bytes | None:
    """Return the bytes of a text; None if it cannot be read now."""
    try:
        with path.open("rb", buffering=0) as file:
            return b"".join(iter(lambda: file.read(1 << 16), b""))
    except OSError:
        return None


class Looker(threading.Thread):
    """Lists the day again and again, and reads each conversation; notes what cannot be true."""

    def __init__(self, day: Path, versions: Versions, ended: threading.Event) -> None:
        super().__init__()
        self.day = day
        self.versions = versions
        self.ended = ended
        self.wrong: list[str] = []
        self.looked = self.errors = 0

    def run(self) -> None:
        while not self.ended.is_set():
            for entry in os.scandir(self.day):
                if entry.name.endswith(".txt") and entry.name.count(".") == 1:
                    self._look(Path(entry.path))

    def _look(self, path: Path) -> None:
        known = self.versions.of[number_of(path)]
        try:
            size = path.stat().st_size
        except OSError:
            size = None
        data = read(path)
        if size is None or data is None:
            self.errors += 1
            return
        self.looked += 1
        if size not in {len(each) for each in known}:
            self.wrong.append(f"{path.name} has no version of {size} bytes")
        if data not in known:
            self.wrong.append(f"{path.name} was never {data!r}")


@pytest.mark.promise("size-is-the-text-s")
def test_a_stat_during_a_listing_while_a_source_changes(tmp_path):
    """Three threads list a day and read its texts, and ls -l does, while transcripts change."""
    rng = random.Random(3)
    with (
        standing(calls(days=1)) as stand_in,
        mounted(stand_in.url, tmp_path, poll_interval="0.1s") as mount,
    ):
        versions = Versions(stand_in.service.account)
        for number in range(6):
            versions.note(number)
        ended = threading.Event()
        lookers = [Looker(mount.point / DAY, versions, ended) for _ in range(3)]
        for each in lookers:
            each.start()
        try:
            for _ in range(CHANGES):
                words = "other words " * rng.randrange(1, 60)
                versions.change(rng.randrange(6), stand_in.service.now_ms(), words)
                listed = subprocess.run(
                    ["ls", "-l", mount.point / DAY], capture_output=True, text=True, check=False
                )
                for line in listed.stdout.splitlines():
                    assert not line.endswith((".txt", ".srt")) or line.split()[4] != "0", line
        finally:
            ended.set()
            for each in lookers:
                each.join(60)
        assert [each.wrong for each in lookers] == [[], [], []]
        assert sum(each.looked for each in lookers) > 5 * sum(each.errors for each in lookers)
        assert all(len(seen) > 5 for seen in versions.of.values())
        for number in range(6):
            [path] = (mount.point / DAY).glob(f"*_{number:08d}.txt")
            until(lambda path=path, last=versions.newest[number]: read(path) == last)
            assert path.stat().st_size == len(versions.newest[number])


# others' tools

FAULTS = (
    {"kind": "content", "fail": "cut", "after": 20, "every": 4},
    {"kind": "content", "fail": "status", "status": 503, "every": 5},
)
TOOLS = {
    "cp": "cp -r {day} {copy}",
    "rsync": "rsync -r {day}/ {copy}/",
    "tar": "tar cf {copy}.tar -C {day} .; mkdir -p {copy}; tar xf {copy}.tar -C {copy}",
    "cat": "mkdir {copy}; for f in {day}/*; do cat $f > {copy}/$(basename $f) ||"
           " rm {copy}/$(basename $f); done",
}  # fmt: skip


def texts_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in names_below(folder)}


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> dict[str, bytes]:
    """The texts of the day, while nothing fails."""
    folder = tmp_path_factory.mktemp("truth")
    with standing(calls(days=1, each=4)) as stand_in, mounted(stand_in.url, folder) as mount:
        return texts_of(mount.point / DAY)


@pytest.mark.promise("size-is-the-text-s")
@pytest.mark.expected_log(".*")
@pytest.mark.parametrize("tool", TOOLS)
def test_what_a_tool_copies_while_the_service_fails_is_whole(tmp_path, truth, tool):
    """Three of ten requests for content fail; what is missing is an error of the tool."""
    needs("rsync")
    with standing(calls(days=1, each=4)) as stand_in:
        met = stand_in.faults(*FAULTS)
        missing = 0
        for number in range(2):
            folder = tmp_path / str(number)
            folder.mkdir()
            with mounted(stand_in.url, folder, read_deadline="0.4s") as mount:
                words = TOOLS[tool].format(day=mount.point / DAY, copy=folder / "copy")
                done = subprocess.run(["sh", "-c", words], capture_output=True, check=False)
                copied = texts_of(folder / "copy")
                assert {name: truth[name] for name in copied} == copied
                assert len(copied) == len(truth) or done.stderr
                missing += len(truth) - len(copied)
        assert sum(met.fired.values()) > 20
        assert missing < 2 * len(truth)


@pytest.mark.promise("size-is-the-text-s")
@pytest.mark.skipif(os.geteuid() != 0, reason="smbd becomes its users, which takes root")
def test_samba_gives_whole_texts_of_sizes_that_it_told(tmp_path, truth):
    needs("smbd", "smbclient")
    copy = tmp_path / "copy"
    copy.mkdir()
    with (
        standing(calls(days=1, each=4)) as stand_in,
        mounted(stand_in.url, tmp_path) as mount,
        smbd(tmp_path, mount.point) as (port, conf),
    ):
        share = ["smbclient", "//127.0.0.1/calls", "-N", "-p", port, f"--configfile={conf}"]
        listed = run(*share, "-D", DAY, "-c", "ls")
        sizes = {line.split()[0]: int(line.split()[2]) for line in listed.splitlines()
                 if line.strip().startswith("12") and ".agentnotes." not in line}  # fmt: skip
        run(*share, "-D", DAY, "-c", "prompt off; mget *", cwd=copy)
        assert texts_of(copy) == truth
        assert {name: sizes[name] for name in truth} == {n: len(t) for n, t in truth.items()}


GANESHA = """
NFS_CORE_PARAM {{ NFS_Protocols = 4; NFS_Port = {port}; Bind_addr = 127.0.0.1;
                  Enable_NLM = false; Enable_RQUOTA = false; }}
NFSV4 {{ Graceless = true; RecoveryBackend = "fs_ng"; RecoveryRoot = "{folder}"; }}
EXPORT {{ Export_Id = 77; Path = "{point}"; Pseudo = "/calls"; Access_Type = RO;
          Squash = No_Root_Squash; Protocols = 4; SecType = sys; Filesystem_id = 80.81;
          FSAL {{ Name = VFS; }} }}
"""
"""A server of NFS in user space. It opens files by their handles, as the kernel's does."""


@contextlib.contextmanager
def ganesha(folder: Path, point: Path) -> Iterator[int]:
    port = free_port()
    conf, log = folder / "ganesha.conf", folder / "ganesha.log"
    conf.write_text(GANESHA.format(port=port, folder=folder, point=point))
    server = subprocess.Popen(
        ["ganesha.nfsd", "-F", "-f", conf, "-L", log, "-p", folder / "ganesha.pid"]
    )
    try:
        until(lambda: listens(port) or server.poll() is not None)
        assert server.poll() is None, log.read_text()
        yield port
    finally:
        server.kill()
        server.wait(60)


@pytest.mark.promise("size-is-the-text-s")
@pytest.mark.skipif(os.geteuid() != 0, reason="open_by_handle_at(2) is root's")
def test_nfs_gives_whole_texts_of_sizes_that_it_told(tmp_path, truth):
    needs("ganesha.nfsd", "nfs-ls", "nfs-cat")
    with (
        standing(calls(days=1, each=4)) as stand_in,
        mounted(stand_in.url, tmp_path) as mount,
        ganesha(tmp_path, mount.point) as port,
    ):
        folder, how = f"nfs://127.0.0.1/calls/{DAY}", f"?version=4&nfsport={port}"
        listed = [line.split() for line in run("nfs-ls", folder + how).splitlines()]
        sizes = {words[-1]: int(words[4]) for words in listed}
        assert {name: sizes[name] for name in truth} == {n: len(t) for n, t in truth.items()}
        for name in sorted(truth)[::4]:
            assert run("nfs-cat", f"{folder}/{name}{how}").encode() == truth[name]


# many


CALLS = 1000


class Together:
    """Counts the requests for content that the service answers at the same time."""

    def __init__(self, service: Service) -> None:
        self._answer = service.answer
        self.now = self.most = 0

    async def answer(self, request: Request) -> Answer:
        is_content = routed(request).kind == "content"
        self.now += is_content
        self.most = max(self.most, self.now)
        try:
            return await self._answer(request)
        finally:
            self.now -= is_content


@pytest.mark.promise("size-is-the-text-s")
def test_ls_l_of_3000_texts_brings_each_source_once(tmp_path, monkeypatch):
    """In batches, over no more connections than the mount may have; and never again."""
    account = Account(
        item for number in range(CALLS) for item in call(number, NOON_MS + 9000 * number, "Al Po")
    )
    folder = Path(".views/text/2026/2026-03/2026-03-02")
    with standing(account) as stand_in:
        together = Together(stand_in.service)
        monkeypatch.setattr(stand_in.service, "answer", together.answer)
        asked = stand_in.service.counters.requests
        stand_in.faults({"kind": "content", "fail": "delay", "seconds": 0.01})
        with mounted(stand_in.url, tmp_path, max_connections="8") as mount:
            names = run("ls", mount.point / folder).splitlines()
            assert len(names) == 3 * CALLS
            assert asked["content"] == 0
            listed = run("ls", "-l", mount.point / folder).splitlines()[1:]
            sizes = {line.split()[-1]: int(line.split()[4]) for line in listed}
            assert asked["content"] == 4 * CALLS  # two transcripts, a summary and notes a call
            assert 4 <= together.most <= 8
            assert not any(id.endswith("-0") for _, id in stand_in.service.counters.sent)
            for name in names[::50]:
                assert len((mount.point / folder / name).read_bytes()) == sizes[name]
            run("ls", "-l", mount.point / folder)
            mount.stop()
        with mounted(stand_in.url, tmp_path) as mount:
            run("ls", "-l", mount.point / folder)
        assert asked["content"] == 4 * CALLS
