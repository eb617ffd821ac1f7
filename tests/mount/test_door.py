"""Programs read through the door what the mount shows, from a daemon with or without a mount."""

import errno
import hashlib
import json
import os
import re
import socket
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from phonofs.demo.dataset import demo_account
from phonofs.door import protocol
from phonofs.door.address import DOOR, read_address
from phonofs.fakeservice.account import Account, Item, change, flat_item
from phonofs.model import LISTED_STATES
from tests.support.accounts import NOON_MS, content_of, flat
from tests.support.doors import PROFILE, Client, DoorError, connect, end_daemon, served
from tests.support.mounts import is_followed, mounted, phonofs, standing, until
from tests.support.timing import Stopwatch

DAY = "2026/2026-03/2026-03-02"


def shown(account: Account) -> dict[str, Item]:
    """Return the objects that the tree shows, by their ids."""
    return {item.id: item for item in account if item.state in LISTED_STATES}


def drained(client: Client, request: protocol.Request) -> None:
    """Receive the whole answer. Raises DoorError, EOFError."""
    client.send(request)
    while isinstance(client.receive()[0], protocol.Entries):
        pass


def end_of(client: Client) -> None:
    """Receive until the daemon hangs up, which is EOFError."""
    while True:
        client.receive()


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The sample account, served without a mount."""
    account = demo_account(datetime(2026, 3, 2, tzinfo=UTC).date())
    folder = tmp_path_factory.mktemp("door")
    with standing(account) as stand_in, served(stand_in.url, folder) as daemon:
        yield stand_in, daemon


@pytest.fixture
def client(sample):
    with sample[1].connect() as client:
        yield client


# the tree


def test_every_object_is_there_with_its_bytes(sample, client):
    """Every size and checksum is the record's; what is archived is listed, and is no data."""
    items = shown(sample[0].service.account)
    found = client.find("")
    assert {entry.id for entry in found} == set(items)
    readable = [entry for entry in found if entry.state == "AVAILABLE"]
    assert len(readable) > 100
    for entry, data in zip(
        readable, client.cat(*[(each.name, None, None) for each in readable]), strict=True
    ):
        assert isinstance(data, bytes), (entry, data)
        item = items[entry.id]
        assert (len(data), data) == (entry.size, item.content.read(0, item.content.size))
        assert entry.created_ms == item.created_ms
    [archived, *_] = [entry for entry in found if entry.state == "ARCHIVED"]
    with pytest.raises(DoorError, match=r"^ENODATA: .*phonofs restore"):
        client.open(archived.name)


def test_a_walk_by_ls_finds_what_find_finds(client):
    def walk(above: str) -> list[protocol.Entry]:
        entries = client.ls(above)
        assert [entry.name for entry in entries] == sorted(entry.name for entry in entries)
        found = []
        for entry in entries:
            path = f"{above}/{entry.name}" if above else entry.name
            assert client.info(path).ino == entry.ino
            found += walk(path) if entry.type == "directory" else [path]
        return found

    month = "2026/2026-03"
    assert walk(month) == [f"{month}/{entry.name}" for entry in client.find(month)]


def test_find_by_depth_and_with_directories(client):
    files = {entry.name for entry in client.find("2026")}
    everything = client.find("2026", withdirs=True)
    assert {entry.name for entry in everything if entry.type == "file"} == files
    assert {entry.name for entry in everything if entry.type == "directory"} == {
        above for name in files for above in (name.rsplit("/", 1)[0], name.split("/")[0])
    }
    assert client.find("2026", maxdepth=1) == []
    months = client.find("2026", maxdepth=1, withdirs=True)
    assert [entry.name for entry in months] == [entry.name for entry in client.ls("2026")]
    [first] = client.ls("2026/2026-03/2026-03-02")[:1]
    [alone] = client.find(f"2026/2026-03/2026-03-02/{first.name}")
    assert (alone.name, alone.id) == ("", first.id)


def test_a_file_is_read_at_any_place_and_to_its_end(sample, client):
    largest = max(client.find("2026/2026-03"), key=lambda entry: entry.size)
    item = shown(sample[0].service.account)[largest.id]
    plain = item.content.read(0, item.content.size)
    opened = client.open(f"2026/2026-03/{largest.name}")
    assert (opened.size, opened.fingerprint) == (largest.size, largest.fingerprint)
    for offset, size in [(0, 10), (5, 0), (opened.size - 3, 99), (opened.size, 1), (0, 1 << 40)]:
        assert client.read(opened.handle, offset, size) == plain[offset : offset + size]
    client.ask(protocol.Close(opened.handle))
    client.ask(protocol.Close(opened.handle))
    with pytest.raises(DoorError, match="EBADF"):
        client.read(opened.handle, 0, 1)


def test_cat_answers_in_order_and_each_for_itself(sample, client):
    """Slices are Python's; one error costs no other file."""
    item_of = shown(sample[0].service.account)
    [one, other] = client.find(DAY)[:2]
    path = f"{DAY}/{one.name}"
    plain = item_of[one.id].content.read(0, one.size)
    cuts = [(None, None), (2, 7), (-5, None), (None, -5), (7, 2), (one.size, None), (0, 1 << 50)]
    items = [(path, start, stop) for start, stop in cuts]
    items[3:3] = [("no/such", None, None), ("2026", None, None), (f"{path}/x", 0, 1)]
    items.append((f"{DAY}/{other.name}", 0, 1))
    found = client.cat(*items)
    assert found[3:6] == ["ENOENT", "EISDIR", "ENOTDIR"]
    del found[3:6]
    assert found[:-1] == [plain[start:stop] for start, stop in cuts]
    assert found[-1] == item_of[other.id].content.read(0, 1)
    assert client.cat() == []


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (protocol.Info("2026/nothing"), "ENOENT"),
        (protocol.Info("../2026"), "ENOENT"),
        (protocol.Info("2026//2026-03"), "ENOENT"),
        (protocol.Info("2026/"), "ENOENT"),
        (protocol.Info("/2026"), "ENOENT"),
        (protocol.Info(".id"), "ENOENT"),
        (protocol.Info(".id/us-east/../x"), "ENOENT"),
        (protocol.Info(".id/elsewhere/x"), "ENOENT"),
        (protocol.Info("x" * 1_000_000), "ENOENT"),
        (protocol.Ls(".views/nothing"), "ENOENT"),
        (protocol.Open("2026"), "EISDIR"),
        (protocol.Record("2026"), "EISDIR"),
        (protocol.Read(1, -1, 1), "EBADF"),
        (protocol.Leave(), "EBUSY"),
        (protocol.Cat([("2026", 0, 1)] * 2001), "E2BIG"),
    ],
)
def test_what_cannot_be_is_an_error_and_the_connection_goes_on(client, request_, name):
    with pytest.raises(DoorError, match=f"^{name}: .+"):
        client.ask(request_)
    assert isinstance(client.ask(protocol.Hello()), protocol.Welcome)


def test_the_records_are_the_account_s(sample, client):
    items = shown(sample[0].service.account)
    found = {entry.id: json.loads(client.record(entry.name)) for entry in client.find("")}
    assert set(found) == set(items)
    assert all(record["id"] == id for id, record in found.items())


def test_the_views_and_their_texts_are_there(client):
    day = f".views/by-day/{DAY[-10:]}"
    listed = client.ls(day)
    texts = [entry for entry in listed if entry.name.endswith(".txt")]
    assert texts
    for entry in texts:
        info = client.info(f"{day}/{entry.name}")
        text = client.whole(f"{day}/{entry.name}")
        assert (len(text), info.ino, info.object_type) == (info.size, entry.ino, "text")
        assert client.open(f"{day}/{entry.name}").fingerprint == info.fingerprint
    [sums] = [entry for entry in listed if entry.name == "MD5SUMS"]
    for line in client.whole(f"{day}/{sums.name}").decode().splitlines():
        if not line.startswith("#"):
            md5, _, name = line.partition("  ")
            data = client.whole(f"{day}/{name}")
            assert hashlib.md5(data, usedforsecurity=False).hexdigest() == md5
    # the directory of the views is not listed in the root, so a search does not go through it
    assert ".views" not in {entry.name for entry in client.ls("")}
    assert not [entry for entry in client.find("") if entry.name.startswith(".views")]


def test_several_regions_are_directories_above_the_years(tmp_path):
    items = [flat_item(f"{region}-1", 10, NOON_MS, region=region) for region in ("uk", "us-east")]
    account = Account(items, ["uk", "us-east"])
    with (
        standing(account) as stand_in,
        served(stand_in.url, tmp_path) as daemon,
        daemon.connect() as client,
    ):
        assert [entry.name for entry in client.ls("")] == ["uk", "us-east"]
        assert len(client.find("uk")) == 1
        assert {entry.region for entry in client.find("")} == {"uk", "us-east"}
        assert client.info(".id/uk/uk-1").region == "uk"
        with pytest.raises(DoorError, match="ENOENT"):
            client.info(".id/us-east/uk-1")


@pytest.mark.promise("one-owner-a-machine")
def test_an_object_by_its_id_costs_one_request_and_each_byte_once(tmp_path):
    """Eight clients at once cost the service as much as one, and no listing of the day."""
    days = [flat_item(f"before-{day}", 50_000, NOON_MS - 86_400_000 * day) for day in range(1, 10)]
    account = Account([*days, *flat(*[50_000] * 40)], ["us-east"])
    options = {"page_size": "1", "poll_interval": "1h"}
    with standing(account) as stand_in, served(stand_in.url, tmp_path, **options) as daemon:
        until(lambda: is_followed(daemon.status()))
        with daemon.connect() as client:
            client.ls("")
            stand_in.service.counters.clear()
            data = client.whole(".id/us-east/before-5.mp3")
            assert data == content_of(stand_in.service, "before-5")
            assert stand_in.service.counters.requests == {"record": 1, "content": 1}
            assert client.info(".id/us-east/before-5").id == "before-5"
            assert stand_in.service.counters.requests["record"] == 1
        stand_in.service.counters.clear()

        def read_day(_: int) -> list[bytes | str]:
            with daemon.connect() as client:
                names = [entry.name for entry in client.ls(DAY)]
                return client.cat(*[(f"{DAY}/{name}", None, None) for name in names])

        with ThreadPoolExecutor(8) as pool:
            every = list(pool.map(read_day, range(8)))
        assert all(each == every[0] for each in every)
        assert len(every[0]) == 40
        counters = stand_in.service.counters
        assert {sent.twice for sent in counters.sent.values()} == {0}
        assert counters.bytes == 40 * 50_000
        assert counters.requests["search"] <= 50, "40 pages of one object, once"


# when the service fails


@pytest.mark.promise("an-error-is-not-absence")
def test_what_cannot_be_asked_is_never_absent(tmp_path):
    """A day that is not known, bytes that are not cached, an id: EIO. What is known is there."""
    items = [flat_item(f"{day:08d}", 1000, NOON_MS - 86_400_000 * day) for day in (0, 1)]
    with standing(Account(items, ["us-east"])) as stand_in:
        options = {"read_deadline": "2s", "poll_interval": "0"}
        with served(stand_in.url, tmp_path, **options) as daemon, daemon.connect() as client:
            [known] = client.ls(DAY)
            kinds = ["search", "record", "content"]
            stand_in.faults({"kind": kinds, "fail": "status", "status": 503})
            assert client.info(f"{DAY}/{known.name}").id == known.id
            unknown = "2026/2026-03/2026-03-01"
            for request in (
                protocol.Ls(unknown),
                protocol.Find(""),
                protocol.Info(f"{unknown}/name"),
                protocol.Info(".id/us-east/unknown"),
                protocol.Ls(DAY, refresh=True),
            ):
                with pytest.raises(DoorError, match=r"^EIO: "):
                    drained(client, request)
            opened = client.open(f"{DAY}/{known.name}")
            with pytest.raises(DoorError, match=r"^EIO: "):
                client.read(opened.handle, 0, 10)
            assert client.cat((f"{DAY}/{known.name}", 0, 1)) == ["EIO"]
            stand_in.faults()
            assert len(client.read(opened.handle, 0, 10)) == 10
            assert len(client.find("")) == 2


def test_a_handle_has_one_version_and_the_next_open_has_the_new_one(tmp_path):
    with (
        standing(flat(300_000)) as stand_in,
        served(stand_in.url, tmp_path, poll_interval="0.2s") as daemon,
        daemon.connect() as client,
    ):
        [entry] = client.ls(DAY)
        opened = client.open(f"{DAY}/{entry.name}")
        client.read(opened.handle, 0, 1)
        service = stand_in.service
        change(
            service.account,
            "us-east",
            entry.id,
            NOON_MS + 10_000,
            content=flat_item("other", 200_000, NOON_MS).content,
        )
        until(lambda: client.info(f"{DAY}/{entry.name}").fingerprint != entry.fingerprint)
        with pytest.raises(DoorError, match=r"^ESTALE: "):
            client.read(opened.handle, 0, 1)
        assert client.whole(f"{DAY}/{entry.name}") == content_of(service, entry.id)
        change(service.account, "us-east", entry.id, NOON_MS + 20_000, state="REVOKED")
        until(lambda: client.cat((f"{DAY}/{entry.name}", 0, 1)) == ["ENOENT"])


@pytest.mark.parametrize("encrypt", ["off", "session"])
def test_a_large_file_is_fetched_once_and_read_again_from_the_cache(tmp_path, encrypt):
    """At once, in pieces, and out of step with the blocks of the cache."""
    options = {"cache_encrypt": encrypt, "poll_interval": "0"}
    with (
        standing(flat(20_000_000)) as stand_in,
        served(stand_in.url, tmp_path, **options) as daemon,
        daemon.connect() as client,
    ):
        plain = content_of(stand_in.service, "00000000")
        path = f"{DAY}/{client.ls(DAY)[0].name}"
        for size in (len(plain), 1 << 20, 100_001, 3_000_000):
            handle = client.open(path).handle
            found = [client.read(handle, at, size) for at in range(0, len(plain), size)]
            assert b"".join(found) == plain
            client.ask(protocol.Close(handle))
        assert stand_in.service.counters.of("us-east", "00000000").twice == 0
        assert stand_in.service.counters.requests["content"] <= 20


# beside a mount


@pytest.mark.fuse
@pytest.mark.promise("door-is-the-tree")
def test_the_door_of_a_mount_shows_what_the_mount_shows(tmp_path):
    """Names, sizes, times, inode numbers, bytes, of the date tree and of a view."""
    account = demo_account(datetime(2026, 3, 2, tzinfo=UTC).date())
    with standing(account) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        with connect(mount.cache) as client:
            for top in ("2026/2026-03", f".views/by-day/{DAY[-10:]}"):
                found = client.find(top, withdirs=True)
                below = list((mount.point / top).rglob("*"))
                assert {entry.name for entry in found} == {
                    str(path.relative_to(mount.point / top)) for path in below
                }
                for entry in found:
                    path = mount.point / top / entry.name
                    info = client.info(f"{top}/{entry.name}")
                    about = path.stat()
                    assert (info.ino, info.mtime_ms) == (about.st_ino, about.st_mtime_ns // 10**6)
                    assert (info.type == "directory") == stat.S_ISDIR(about.st_mode)
                    if info.type == "file" and info.state != "ARCHIVED":
                        assert info.size == about.st_size
                        assert client.whole(f"{top}/{entry.name}") == path.read_bytes()
        assert "Traceback" not in mount.log_text()


@pytest.mark.fuse
@pytest.mark.promise("a-client-leaves-nothing")
def test_200_clients_at_once_do_not_hold_a_listing_up(tmp_path):
    """Each reads a file that is not cached; afterwards nothing is held."""
    with standing(flat(*[100_000] * 200)) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        assert len(list((mount.point / DAY).iterdir())) == 200
        names = [path.name for path in (mount.point / DAY).iterdir()]
        stand_in.faults({"kind": "content", "fail": "delay", "seconds": 1})
        begun = threading.Barrier(201)

        def read(name: str) -> int:
            with connect(mount.cache) as client:
                opened = client.open(f"{DAY}/{name}")
                begun.wait(60)
                return len(client.read(opened.handle, 0, 100_000))

        with ThreadPoolExecutor(200) as pool:
            reads = [pool.submit(read, name) for name in names]
            begun.wait(60)
            watch = Stopwatch()
            done = subprocess.run(["ls", "-l", mount.point / DAY], capture_output=True, check=True)
            assert watch.within(1), watch
            assert len(done.stdout.splitlines()) == 201
            assert {each.result() for each in reads} == {100_000}
        until(lambda: gauges(mount.cache)[0] == (1, 0, 1))
        assert gauges(mount.cache)[1]["waiters"] == 0


def gauges(cache) -> tuple[tuple[object, ...], dict[str, object]]:
    """Return connections, handles and requests under way, and the gauges of the reader."""
    with connect(cache) as client:
        client.send(protocol.Status())
        status = json.loads(client.data())
    door = status["door"]
    return (door["connections"], door["handles"], door["active"]), status["reader"]


# clients that misbehave


@pytest.mark.promise("a-client-leaves-nothing")
def test_garbage_is_answered_by_hanging_up(sample):
    for garbage in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\0",
        b"\xff" * 100,
        protocol.LENGTH.pack(3) + b"abc",
        protocol.pack(protocol.End()),
        protocol.pack(protocol.Hello()) * 50,
    ):
        with sample[1].connect() as client:
            client.socket.sendall(garbage)
            with pytest.raises(EOFError):
                end_of(client)
    assert gauges(sample[1].cache)[0] == (1, 0, 1)
    assert "Traceback" not in sample[1].log_text()


@pytest.mark.promise("a-client-leaves-nothing")
def test_a_client_that_vanishes_leaves_nothing(tmp_path):
    """Amid a read that waits, amid a long cat, with files open, amid its own request."""
    with standing(flat(*[100_000] * 30)) as stand_in, served(stand_in.url, tmp_path) as daemon:
        with daemon.connect() as client:
            names = [f"{DAY}/{entry.name}" for entry in client.ls(DAY)]
        stand_in.faults({"kind": "content", "fail": "stall", "after": 10})
        clients = [daemon.connect() for _ in range(4)]
        handles = [clients[0].open(name).handle for name in names]
        clients[0].send(protocol.Read(handles[0], 0, 100_000))
        clients[1].send(protocol.Cat([(name, None, None) for name in names]))
        clients[2].socket.sendall(protocol.pack(protocol.Info(names[0]))[:-3])
        clients[3].open(names[0])
        until(lambda: gauges(daemon.cache)[1]["waiters"] >= 2)
        for client in clients:
            client.close()
        until(lambda: gauges(daemon.cache)[0] == (1, 0, 1))
        until(lambda: gauges(daemon.cache)[1]["waiters"] == 0)
        assert gauges(daemon.cache)[1]["handles"] == 0
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log_text()


def test_a_connection_may_have_so_many_files_open_and_no_more(sample, client):
    [entry, *_] = client.find(DAY)
    for _ in range(protocol.HANDLES_MAX):
        client.open(f"{DAY}/{entry.name}")
    with pytest.raises(DoorError, match=r"^EMFILE: "):
        client.open(f"{DAY}/{entry.name}")
    client.ask(protocol.Close(1))
    client.open(f"{DAY}/{entry.name}")


# who may use it


def test_the_socket_and_its_note_are_for_the_owner_alone(sample):
    cache = sample[1].cache
    path = read_address(cache)
    assert path is not None
    assert stat.S_IMODE((cache / DOOR).stat().st_mode) == 0o600
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_is_hung_up_on(sample):
    """Even one who gets at the socket: the kernel says whose process connects."""
    path = read_address(sample[1].cache)
    assert path is not None
    above = [each for each in path.parents if each.stat().st_mode & 0o001 == 0]
    modes = {each: stat.S_IMODE(each.stat().st_mode) for each in [*above, path]}
    try:
        for each in modes:
            each.chmod(0o777)
        code = (
            "import os, socket; os.setuid(12345); s = socket.socket(socket.AF_UNIX);"
            f"s.connect({str(path)!r}); s.sendall({protocol.pack(protocol.Hello())!r});"
            "print(s.recv(10))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert done.stdout == "b''\n" or re.search("ConnectionReset|BrokenPipe", done.stderr), done
    finally:
        for each, mode in modes.items():
            each.chmod(mode)


# its life


def test_a_signal_ends_it_and_leaves_no_note(tmp_path):
    with standing(flat(1000)) as stand_in, served(stand_in.url, tmp_path) as daemon:
        with daemon.connect() as client:
            client.open(f"{DAY}/{client.ls(DAY)[0].name}")
            path = read_address(daemon.cache)
            watch = Stopwatch()
            assert daemon.stop() == 0
            assert watch.within(5)
            with pytest.raises(EOFError):
                client.receive()
        assert path is not None
        assert not path.exists()
        assert read_address(daemon.cache) is None
        assert "Traceback" not in daemon.log_text()


def test_a_daemon_that_was_killed_makes_way_for_the_next(tmp_path):
    """Its note is stale, and in nobody's way."""
    with standing(flat(1000)) as stand_in, served(stand_in.url, tmp_path) as daemon:
        with daemon.connect() as client:
            [entry] = client.ls(DAY)
            client.whole(f"{DAY}/{entry.name}")
        assert daemon.stop(9) == -9
        assert read_address(daemon.cache) is not None
        daemon.start()
        with daemon.connect() as client:
            assert len(client.whole(f"{DAY}/{entry.name}")) == 1000


@pytest.mark.parametrize("kind", ["read", "cat", "ls"])
def test_a_daemon_killed_amid_an_answer_hangs_up(tmp_path, kind):
    """And takes no client for answered."""
    with (
        standing(flat(*[100_000] * 3)) as stand_in,
        served(stand_in.url, tmp_path) as daemon,
        daemon.connect() as client,
    ):
        path = f"{DAY}/{client.ls(DAY)[0].name}"
        handle = client.open(path).handle
        stand_in.faults({"kind": ["content", "search"], "fail": "stall", "after": 10})
        requests = {
            "read": protocol.Read(handle, 0, 100_000),
            "cat": protocol.Cat([(path, None, None)]),
            "ls": protocol.Ls(DAY, refresh=True),
        }
        client.send(requests[kind])
        until(lambda: gauges(daemon.cache)[0][2] == 2)
        daemon.stop(9)
        with pytest.raises(EOFError):
            end_of(client)


def test_sighup_reads_the_key_again(tmp_path):
    with standing(flat(1000)) as stand_in, served(stand_in.url, tmp_path) as daemon:
        tokens = stand_in.service.counters.tokens
        daemon.process.send_signal(1)
        until(lambda: stand_in.service.counters.tokens > tokens)
        assert daemon.answers()


def test_a_service_manager_is_told_when_it_serves_and_that_it_answers(tmp_path):
    """Its condition, too; the watchdog asks through the door."""
    with (
        standing(flat(1000)) as stand_in,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        served(stand_in.url, tmp_path) as daemon,
    ):
        daemon.stop()
        address = f"@phonofs-test-{os.getpid()}"
        manager.bind("\0" + address[1:])
        manager.settimeout(30)
        daemon.environment |= {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "4000000"}
        daemon.start()
        told: set[str] = set()
        while not {"READY=1", "WATCHDOG=1"} <= told or not any(
            "serving, " in each for each in told
        ):
            told |= set(manager.recv(4096).decode().splitlines())
        daemon.stop()
        while "STOPPING=1" not in told:
            told |= set(manager.recv(4096).decode().splitlines())


@pytest.mark.fuse
@pytest.mark.promise("one-owner-a-machine")
def test_one_process_owns_a_cache_folder_and_the_second_says_which(tmp_path):
    with standing(flat(1000)) as stand_in, served(stand_in.url, tmp_path) as daemon:
        for words in (["serve", PROFILE], ["mount", PROFILE, str(tmp_path / "m")]):
            (tmp_path / "m").mkdir(exist_ok=True)
            done = phonofs(daemon, *words)
            assert done.returncode == 1
            assert f"(process {daemon.process.pid})" in done.stderr
        assert daemon.answers()


def start_on_demand(daemon) -> subprocess.CompletedProcess[str]:
    return phonofs(daemon, "serve", PROFILE, "--idle", "60s")


@pytest.mark.promise("one-owner-a-machine")
def test_twenty_that_start_at_once_are_one_daemon(tmp_path):
    """All say that it can be used, and nothing else."""
    with standing(flat(1000)) as stand_in, served(stand_in.url, tmp_path) as daemon:
        daemon.stop()
        try:
            with ThreadPoolExecutor(20) as pool:
                done = list(pool.map(lambda _: start_on_demand(daemon), range(20)))
            assert {(each.returncode, each.stdout, each.stderr) for each in done} == {(0, "", "")}
            with daemon.connect() as client:
                welcome = client.ask(protocol.Hello())
                assert welcome.on_demand
                assert len(client.ls(DAY)) == 1
            tokens = stand_in.service.counters.tokens
            assert tokens == 2, "one for the first daemon, one for the second"
        finally:
            end_daemon(daemon.cache)


def test_one_started_on_demand_ends_when_it_was_idle(tmp_path):
    """Not while a file is open, nor while it is asked now and then."""
    with (
        standing(flat(1000)) as stand_in,
        served(stand_in.url, tmp_path, "--idle", "1s") as daemon,
    ):
        with daemon.connect() as client:
            handle = client.open(f"{DAY}/{client.ls(DAY)[0].name}").handle
            with pytest.raises(subprocess.TimeoutExpired):
                daemon.process.wait(2)
            client.ask(protocol.Close(handle))
            assert daemon.process.wait(60) == 0
        assert read_address(daemon.cache) is None
        assert "it ends" in daemon.log_text()


@pytest.mark.fuse
def test_an_idle_one_hands_over_to_a_mount_and_a_busy_one_does_not(tmp_path):
    with (
        standing(flat(1000)) as stand_in,
        served(stand_in.url, tmp_path, "--idle", "60s") as daemon,
    ):
        point = tmp_path / "m"
        point.mkdir()
        with daemon.connect() as client:
            client.open(f"{DAY}/{client.ls(DAY)[0].name}")
            done = phonofs(daemon, "mount", PROFILE, str(point))
            assert (done.returncode, str(daemon.process.pid) in done.stderr) == (1, True)
        until(lambda: gauges(daemon.cache)[0][1] == 0)
        done = phonofs(daemon, "mount", PROFILE, str(point))
        assert (done.returncode, done.stderr) == (0, "")
        try:
            assert daemon.process.wait(60) == 0
            assert len(list((point / DAY).iterdir())) == 1
            assert start_on_demand(daemon).returncode == 0  # the mount serves it
        finally:
            assert phonofs(daemon, "umount", str(point)).returncode == 0


# the commands


def test_the_commands_work_with_a_daemon(sample):
    stand_in, daemon = sample
    done = phonofs(daemon, "status", "--profile", PROFILE, "--json")
    status = json.loads(done.stdout)
    assert (status["pid"], status["mountpoint"]) == (daemon.process.pid, "")
    assert status["condition"].startswith("serving, ")
    done = phonofs(daemon, "status", "--profile", PROFILE)
    assert done.stdout.splitlines()[0] == f"profile {PROFILE}"
    done = phonofs(daemon, "find", "--profile", PROFILE, "--type", "voicemail")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 5), done
    assert all(line.startswith("2026/") for line in done.stdout.splitlines())
    done = phonofs(daemon, "manifest", "--profile", PROFILE, "2026/2026-03")
    assert (done.returncode, done.stderr.count("\n") <= 1) == (0, True), done
    assert len(done.stdout.splitlines()) > 2
    done = phonofs(daemon, "index", "--profile", PROFILE)
    count = len(shown(stand_in.service.account))
    assert (done.returncode, done.stdout) == (0, f"{count} objects known\n")
    done = phonofs(daemon, "status", "--profile", PROFILE, "--log-level", "info")
    assert done.stdout == f"profile {PROFILE} logs at info from now on\n"


def test_watch_prints_the_changes_of_a_daemon(tmp_path):
    with (
        standing(flat(1000)) as stand_in,
        served(stand_in.url, tmp_path, poll_interval="0.2s") as daemon,
    ):
        with daemon.connect() as client:
            [entry] = client.ls(DAY)
        watching = subprocess.Popen(
            [sys.executable, "-m", "phonofs.cli", "watch", "--profile", PROFILE],
            env=daemon.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            for step in range(1, 100):
                change(
                    stand_in.service.account,
                    "us-east",
                    entry.id,
                    NOON_MS + 1000 * step,
                    state="ARCHIVED" if step % 2 else "AVAILABLE",
                )
                line = readline(watching, 1)
                if line:
                    break
            assert json.loads(line)["path"] == f"{DAY}/{entry.name}"
            daemon.stop()
            assert watching.wait(60) == 3
            assert f"profile {PROFILE} is no longer served" in watching.stderr.read()
        finally:
            watching.kill()
            watching.communicate()


def readline(process: subprocess.Popen[str], within_s: float) -> str:
    """Return a line of the output; '' if none comes in time."""
    import select

    ready, _, _ = select.select([process.stdout], [], [], within_s)
    return process.stdout.readline() if ready else ""


def test_without_a_daemon_the_commands_say_so(tmp_path):
    with standing(flat(1000)) as stand_in, served(stand_in.url, tmp_path) as daemon:
        daemon.stop()
        for words in (["status", "--profile", PROFILE], ["watch", "--profile", PROFILE]):
            done = phonofs(daemon, *words)
            assert done.returncode == 1
            assert f"the profile {PROFILE} is neither mounted nor served" in done.stderr


def test_an_errno_has_its_name():
    """The protocol has names, which are the same on every system."""
    assert errno.errorcode[errno.ENODATA] == "ENODATA"
