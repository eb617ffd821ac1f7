"""``phonofs://`` over a door: what it lists, reads and refuses, and what it does after a fault."""

import errno
import inspect
import io
import json
import os
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")

from phonofs.door import protocol as door  # noqa: E402
from phonofs.spec import PhonofsFileSystem  # noqa: E402
from tests.support.folder_door import FolderDoor, HangUp, folder_door  # noqa: E402

DAY = "2024/2024-09/2024-09-17"
BIG = bytes(range(251)) * 20_000
"""Larger than what is read at once, and than a message."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[FolderDoor]:
    folder = tmp_path / "tree"
    (folder / DAY).mkdir(parents=True)
    for name, content in {"a.mp3": b"aaaa", "b[1].json": b"{}", "big.mp3": BIG}.items():
        (folder / DAY / name).write_bytes(content)
    (folder / "2023").mkdir()
    with folder_door(folder, tmp_path / "s") as door:
        yield door


@pytest.fixture
def fs(served: FolderDoor) -> PhonofsFileSystem:
    return fsspec.filesystem("phonofs", socket=str(served.path), skip_instance_cache=True)


def errno_of(ask: Callable[[], object]) -> int | None:
    """Return the errno of what a call raises; None if it raises nothing."""
    try:
        ask()
    except OSError as error:
        return error.errno
    return None


A, B, LARGE = (f"work/{DAY}/{name}" for name in ("a.mp3", "b[1].json", "big.mp3"))


def test_the_first_part_of_a_path_is_the_profile(fs):
    assert fs.ls("", detail=False) == ["work"]
    assert fs.ls("phonofs://work/", detail=False) == ["work/2023", "work/2024"]
    assert fs.ls(A, detail=False) == [A]
    assert [fs.isdir(path) for path in ("", "work", A)] == [True, True, False]
    assert not fs.isfile("work")
    assert fs.isfile(f"phonofs://{A}")
    with pytest.raises(FileNotFoundError):
        fs.info("no profile is like this/2024")


def test_the_profiles_are_those_that_are_configured(tmp_path, monkeypatch):
    (tmp_path / "phonofs").mkdir()
    (tmp_path / "phonofs/config.toml").write_text('[work]\nkey = "k"\n[home]\nkey = "k"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    names = PhonofsFileSystem(skip_instance_cache=True).ls("", detail=False)
    assert {"home", "work"} <= {*names}
    (tmp_path / "phonofs/config.toml").write_text("[")
    with pytest.raises(ConnectionError, match="not valid TOML"):
        PhonofsFileSystem(skip_instance_cache=True).ls("")


def test_a_day_can_be_listed_anew(fs, served):
    asked: list[door.Request] = []
    served.trouble = asked.append
    fs.ls(f"work/{DAY}")
    fs.ls(f"work/{DAY}", refresh=True)
    assert [each.refresh for each in asked if isinstance(each, door.Ls)] == [False, True]


def test_info_tells_what_no_reading_changes(fs, served):
    info = fs.info(A)
    status = (served.folder / DAY / "a.mp3").stat()
    assert {name: info[name] for name in ("name", "size", "type", "ino", "state", "region")} == {
        "name": A, "size": 4, "type": "file", "ino": status.st_ino, "state": "AVAILABLE",
        "region": "us-east",
    }  # fmt: skip
    assert fs.size(A) == 4
    assert fs.modified(A).timestamp() == pytest.approx(status.st_mtime, abs=0.001)
    assert fs.created(A) == fs.modified(A)
    before = fs.ukey(A), fs.checksum(A)
    fs.cat_file(A)
    assert (fs.ukey(A), fs.checksum(A)) == before
    (served.folder / DAY / "a.mp3").write_bytes(b"other")
    assert fs.ukey(A) != before[0]
    assert json.loads(fs.record(A)) == {"id": "a.mp3"}


def test_find_walk_and_du_are_of_everything(fs):
    assert fs.find("work") == [A, B, LARGE]
    assert fs.find(A) == [A]
    assert fs.find("", maxdepth=2, withdirs=True) == ["work", "work/2023", "work/2024"]
    assert fs.find("") == fs.find("work")
    assert set(fs.find("work/2024", withdirs=True)) == {
        "work/2024", "work/2024/2024-09", f"work/{DAY}", A, B, LARGE,
    }  # fmt: skip
    assert fs.find("work/2024", detail=True)[A]["size"] == 4
    walked = [*fs.walk("work", maxdepth=3)]
    assert walked[0] == ("work", ["2023", "2024"], [])
    assert [path for path, _, _ in walked][-1] == "work/2024/2024-09"
    assert [path for path, _, _ in fs.walk("work", topdown=False)][-1] == "work"
    assert fs.du("work") == 6 + len(BIG)
    assert fs.du(f"work/{DAY}", total=False)[B] == 2


def test_walk_can_be_told_where_not_to_go(fs):
    seen = []
    for path, dirs, _ in fs.walk("work"):
        seen.append(path)
        if path == "work":
            dirs.remove("2024")
    assert seen == ["work", "work/2023"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("work/*", ["work/2023", "work/2024"]),
        ("work/2024/*/*/*.mp3", [A, LARGE]),
        ("work/2024/*/*/[ab]*", [A, B, LARGE]),
        (f"work/{DAY}/b[1].json", [B]),
        ("*/2024/2024-0?/", ["work/2024/2024-09"]),
        ("work/**/*.json", [B]),
        ("work/**/big.*", [LARGE]),
        ("work/2025/*", []),
        ("work/2024/none/*/x", []),
        (A, [A]),
    ],
)
def test_glob(fs, pattern, found):
    assert fs.glob(pattern) == found
    assert [*fs.glob(pattern, detail=True)] == found


def test_glob_lists_only_what_matches(fs, served):
    fs.glob("work/2024/2024-09/*-17/*.mp3")
    assert served.requests["Ls"] == 2
    assert served.requests["Find"] == 0


def test_bytes_are_read_in_every_way(fs, tmp_path):
    assert fs.cat_file(A, 1, -1) == b"aa"
    assert fs.cat(A) == b"aaaa"
    assert fs.cat([A, B]) == {A: b"aaaa", B: b"{}"}
    assert fs.cat(f"work/{DAY}", recursive=True) == {A: b"aaaa", B: b"{}", LARGE: BIG}
    assert fs.cat_ranges([A, LARGE, LARGE], [0, 10, -3], [2, 20, None]) == [
        b"aa", BIG[10:20], BIG[-3:],
    ]  # fmt: skip
    assert fs.read_block(A, 1, 2) == b"aa"
    assert (fs.head(LARGE, 3), fs.tail(LARGE, 3)) == (BIG[:3], BIG[-3:])
    assert fs.read_text(B) == "{}"
    fs.get(f"work/{DAY}", str(tmp_path / "copy"), recursive=True)
    assert (tmp_path / "copy/big.mp3").read_bytes() == BIG
    fs.get(B, str(tmp_path / "one.json"))
    fs.get(B, str(tmp_path / "copy/"))
    assert (tmp_path / "one.json").read_text() == (tmp_path / "copy/b[1].json").read_text() == "{}"
    target = io.BytesIO()
    fs.get_file(A, target)
    assert target.getvalue() == b"aaaa"


def test_an_open_file_reads_ahead_in_blocks(fs, served):
    with fs.open(LARGE) as file:
        assert served.requests["Open"] == 0  # the first read opens it
        assert file.size == len(BIG)
        parts = [file.read(100) for _ in range(1000)]
        assert b"".join(parts) == BIG[:100_000]
        assert served.requests["Read"] == 1
        file.seek(-5, 2)
        assert file.read() == BIG[-5:]
        assert file.read() == b""
        file.seek(0)
        assert file.read() == BIG
        assert file.tell() == len(BIG)
    assert served.requests["Close"] == 1


def test_many_small_files_are_one_request(fs, served):
    folder = served.folder / DAY
    for n in range(2500):
        (folder / f"n{n:04}").write_bytes(b"%d" % n)
    paths = [f"work/{DAY}/n{n:04}" for n in range(2500)]
    assert [*fs.cat(paths).values()] == [b"%d" % n for n in range(2500)]
    assert served.requests["Open"] == 0
    assert served.requests["Cat"] == 2  # one has at most door.CAT_MAX
    assert served.connections == 1


def test_what_one_file_lacks_is_told_of_it_alone(fs):
    none = f"work/{DAY}/none"
    with pytest.raises(FileNotFoundError, match="none"):
        fs.cat([A, none])
    assert fs.cat([A, none], on_error="omit") == {A: b"aaaa"}
    assert isinstance(fs.cat([A, none], on_error="return")[none], FileNotFoundError)
    found = fs.cat_ranges([none, A], 0, None)
    assert isinstance(found[0], FileNotFoundError)
    assert found[1] == b"aaaa"
    assert isinstance(fs.cat_ranges(["work/2024"], 0, None)[0], IsADirectoryError)


def test_a_copy_is_whole_or_not_there(fs, served, tmp_path):
    def fail(request: door.Request) -> None:
        if isinstance(request, door.Read) and request.offset:
            raise OSError(errno.EIO, "it failed")

    (served.folder / DAY / "huge").write_bytes(bytes(17 << 20))
    (tmp_path / "to").write_bytes(b"former")
    served.trouble = fail
    with pytest.raises(OSError, match="it failed"):
        fs.get_file(f"work/{DAY}/huge", str(tmp_path / "to"))
    assert (tmp_path / "to").read_bytes() == b"former"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".phonofs")] == []


@pytest.mark.promise("an-error-is-not-absence")
@pytest.mark.parametrize("name", ["EIO", "EACCES", "ETIMEDOUT"])
def test_what_cannot_be_asked_is_not_taken_for_absent(fs, served, name):
    """fsspec's own methods would say False, or leave it out."""

    def fail(request: door.Request) -> None:
        if not isinstance(request, door.Hello):
            raise OSError(getattr(errno, name), "the service is away")

    served.trouble = fail
    number = getattr(errno, name)
    asked = [
        lambda: fs.exists(A), lambda: fs.isfile(A), lambda: fs.isdir("work"),
        lambda: fs.find("work"), lambda: fs.glob("work/*"), lambda: fs.glob("work/**"),
        lambda: fs.glob(A), lambda: [*fs.walk("work")], lambda: [*fs.walk("work", on_error="omit")],
        lambda: fs.du("work"), lambda: fs.expand_path("work/*"), lambda: fs.info(A),
        lambda: fs.ls("work"), lambda: fs.cat(A), lambda: fs.open(A),
    ]  # fmt: skip
    for ask in asked:
        assert errno_of(ask) == number, inspect.getsource(ask)


@pytest.mark.promise("an-error-is-not-absence")
def test_half_a_walk_is_an_error(fs, served):
    """A directory in the middle fails: it is not shown empty."""

    def fail(request: door.Request) -> None:
        if isinstance(request, door.Ls) and request.path == "2024/2024-09":
            raise OSError(errno.EIO, "the service is away")

    served.trouble = fail
    with pytest.raises(OSError, match="away"):
        [*fs.walk("work")]
    errors: list[OSError] = []
    walked = [path for path, _, _ in fs.walk("work", on_error=errors.append)]
    assert (walked, len(errors)) == (["work", "work/2023", "work/2024"], 1)


def test_what_is_absent_is_said_so(fs):
    none, below = f"work/{DAY}/none", f"{A}/below"
    for path in (none, below, f"work/{'x' * 5000}", "work/\udcff", "-/x"):
        assert not fs.exists(path)
        assert not fs.isfile(path)
        assert not fs.isdir(path)
        assert fs.glob(path) == []
    for ask in (fs.find, fs.du, fs.ls, fs.info, fs.open, lambda path: [*fs.walk(path)]):
        with pytest.raises(FileNotFoundError):
            ask(none)


WRITES = {
    "cp": ("x", A), "cp_file": ("x", A), "copy": ("x", A), "delete": (A,), "makedir": (A,),
    "makedirs": (A,), "mkdir": (A,), "mkdirs": (A,), "move": (A, "x"), "mv": (A, "x"),
    "pipe": (A, b""), "pipe_file": (A, b""), "put": ("x", A), "put_file": ("x", A),
    "rename": (A, "x"), "rm": (A,), "rm_file": (A,), "rmdir": (A,), "touch": (A,),
    "upload": ("x", A), "write_bytes": (A, b""), "write_text": (A, ""),
}  # fmt: skip
READS = {
    "cat", "cat_file", "cat_ranges", "checksum", "clear_instance_cache", "created", "current",
    "disk_usage", "download", "du", "end_transaction", "exists", "expand_path", "find", "from_dict",
    "from_json", "get", "get_file", "get_mapper", "glob", "head", "info", "invalidate_cache",
    "isdir", "isfile", "lexists", "listdir", "ls", "modified", "open", "opened", "read_block",
    "read_bytes", "read_text", "record", "sign", "size", "sizes", "start_transaction", "stat",
    "tail", "to_dict", "to_json", "transaction_type", "tree", "ukey", "unstrip_protocol", "walk",
}  # fmt: skip
"""What fsspec's class can do besides writing; a new method is in neither list, and has to be
looked at."""


def test_nothing_that_writes_sends_anything(fs, served):
    methods = {
        name
        for name in dir(PhonofsFileSystem)
        if not name.startswith("_") and callable(getattr(PhonofsFileSystem, name))
    }
    assert methods - READS == {*WRITES}
    for name, arguments in WRITES.items():
        method = getattr(fs, name)
        assert errno_of(partial(method, *arguments)) == errno.EROFS, name
    for mode in ("wb", "w", "ab", "xb", "r+b"):
        assert errno_of(partial(fs.open, A, mode)) == errno.EROFS, mode
    assert served.requests.total() == 0


def test_no_option_is_a_secret(fs):
    for name in ("key", "secret", "secret_file", "token", "api_url"):
        with pytest.raises(ValueError, match="no option of phonofs://, but of the profile"):
            PhonofsFileSystem(**{name: "x"})
    with pytest.raises(ValueError, match="did you mean 'timeout'"):
        PhonofsFileSystem(timeou=1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timeout": "soon"}, r"timeout='soon': a duration looks like"),
        ({"timeout": 0}, "more than 0"),
        ({"block_size": "much"}, r"block_size='much': a size looks like"),
        ({"block_size": 0}, "at least 1"),
        ({"cache_type": "x"}, "one of .*readahead"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(options, said):
    with pytest.raises(ValueError, match=said):
        PhonofsFileSystem(**options)


def test_options_are_taken_from_the_environment_too(monkeypatch, served):
    monkeypatch.setitem(
        fsspec.config.conf, "phonofs",
        {"socket": str(served.path), "timeout": "1m", "block_size": "64K", "autostart": "false"},
    )  # fmt: skip
    fs = fsspec.filesystem("phonofs", skip_instance_cache=True)
    assert fs.blocksize == 64 << 10
    assert fs.cat(A) == b"aaaa"


def test_an_idle_connection_that_was_closed_is_no_error(fs, served):
    assert fs.exists(A)
    served.hang_up()
    assert fs.exists(A)
    served.hang_up()
    assert fs.cat([A, B]) == {A: b"aaaa", B: b"{}"}
    served.hang_up()
    assert fs.cat_ranges([A, B], [0, 1], [2, 2]) == [b"aa", b"}"]


@pytest.mark.promise("a-file-is-one-version")
def test_an_open_file_goes_on_after_a_restart_if_it_is_the_same(fs, served):
    with fs.open(LARGE) as same, fs.open(A) as other, fs.open(B) as gone:
        assert same.read(10) == BIG[:10]
        other.read(1), gone.read(1)
        served.stop()
        served.start()
        (served.folder / DAY / "a.mp3").write_bytes(b"bbbb")
        (served.folder / DAY / "b[1].json").unlink()
        same.seek(4_000_000)
        assert same.read(10) == BIG[4_000_000:4_000_010]
        for file in (other, gone):
            file.cache.cache, file.cache.start, file.cache.end = b"", 0, 0
            file.seek(0)
            assert errno_of(partial(file.read, 1)) == errno.ESTALE


@pytest.mark.promise("a-file-is-one-version")
def test_a_file_that_changes_before_its_first_read_is_stale(fs, served):
    with fs.open(A) as file:
        (served.folder / DAY / "a.mp3").write_bytes(b"longer")
        assert errno_of(file.read) == errno.ESTALE


def test_a_request_that_dies_in_the_middle_is_asked_again(fs, served):
    """Once; what was had of many files is not fetched again."""
    deaths = iter([True])

    def die(request: door.Request) -> None:
        if not isinstance(request, door.Hello) and next(deaths, False):
            raise HangUp

    for ask in (
        lambda: fs.find("work"),
        lambda: fs.cat([A, B]),
        lambda: fs.cat_ranges([A, B], 0, None),
        lambda: fs.info(A),
    ):
        deaths = iter([True])
        served.trouble = die
        assert ask()
        deaths = iter([True, True])
        with pytest.raises(ConnectionError, match="hung up"):
            ask()


def test_a_daemon_that_says_nothing_is_waited_for_no_longer_than_said(served):
    fs = PhonofsFileSystem(socket=str(served.path), timeout=0.1, skip_instance_cache=True)
    stuck = threading.Event()
    served.trouble = lambda request: None if isinstance(request, door.Hello) else stuck.wait(10)
    try:
        with pytest.raises(TimeoutError, match=r"within 0.1 s"):
            fs.exists(A)
    finally:
        stuck.set()


@pytest.mark.parametrize("answer", [b"\xff" * 100, b"\0\0\0\x01\xc1", b"\0\0\0\0"])
def test_what_is_no_answer_is_an_error(tmp_path, answer):
    """Something else may listen at the socket, or a later phonofs."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        fs = PhonofsFileSystem(socket=str(tmp_path / "s"), skip_instance_cache=True)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert errno_of(partial(fs.exists, A)) == errno.EPROTO
        thread.join()


def test_a_daemon_of_another_protocol_or_profile_is_refused(fs, served):
    served.profile = "other"
    with pytest.raises(ConnectionError, match="serves profile other"):
        fs.exists(A)


def test_without_a_daemon_it_says_what_to_do(tmp_path):
    fs = PhonofsFileSystem(socket=str(tmp_path / "none"), skip_instance_cache=True)
    with pytest.raises(ConnectionError, match="phonofs serve work"):
        fs.exists(A)


def content(fs, path: str) -> bytes:
    return fs.cat_file(path)


def rest(file) -> bytes:
    return file.read()


FORKS = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
"""From Python 3.12 on it is warned of a fork beside threads, as those of the door are here."""


@FORKS
@pytest.mark.promise("fork-thread-pickle")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_other_processes_may_use_it(fs, served, method):
    """An instance that has been used, and a file that is open and half read."""
    assert fs.cat_file(A) == b"aaaa"
    with fs.open(LARGE) as file:
        file.read(7)
        with ProcessPoolExecutor(2, mp_context=get_context(method)) as pool:
            found = [*pool.map(content, [fs] * 4, [A, LARGE, A, LARGE], timeout=60)]
            rests = [*pool.map(rest, [file] * 2, timeout=60)]
        assert found == [b"aaaa", BIG, b"aaaa", BIG]
        assert rests == [BIG[7:]] * 2
        assert file.read() == BIG[7:]


@FORKS
@pytest.mark.promise("fork-thread-pickle")
def test_a_forked_child_reads_on_connections_of_its_own(fs, served):
    """It inherits those of its parent, which goes on with them."""
    with fs.open(LARGE, cache_type="none") as file:
        assert file.read(10) == BIG[:10]
        assert fs.cat_file(A) == b"aaaa"
        before = served.connections
        child = os.fork()
        if not child:
            good = file.read(10) == BIG[10:20] and fs.cat_file(A) == b"aaaa"
            file.close()
            os._exit(0 if good else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert served.connections == before + 2
        assert file.read(10) == BIG[10:20]
        assert fs.cat_file(A) == b"aaaa"


@pytest.mark.promise("fork-thread-pickle")
def test_many_threads_share_one_instance(fs, served):
    with ThreadPoolExecutor(16) as pool:
        found = [*pool.map(lambda n: fs.cat_file(LARGE, n, n + 1000), range(400))]
    assert found == [BIG[n : n + 1000] for n in range(400)]
    assert served.connections <= 16


def test_a_file_that_another_thread_closes_is_read_to_the_end(fs, served):
    """The close does not send into the answer, or take a part of it."""
    asked, answer = threading.Event(), threading.Event()

    def hold(request: door.Request) -> None:
        if isinstance(request, door.Read):
            asked.set()
            answer.wait(10)

    served.trouble = hold
    file = fs.opened(fs.info(LARGE))
    with ThreadPoolExecutor(2) as pool:
        reading = pool.submit(file.read, 0, len(BIG))
        assert asked.wait(10)
        closing = pool.submit(file.close)
        with pytest.raises(TimeoutError):
            closing.result(0.2)  # it waits for the read
        answer.set()
        assert reading.result(10) == BIG
        closing.result(10)
    assert served.requests["Close"] == 1


@pytest.mark.promise("fork-thread-pickle")
def test_a_pickle_has_the_options_and_nothing_else(fs, served):
    again = pickle.loads(pickle.dumps(fs))
    assert again.cat_file(A) == b"aaaa"
    assert type(fs).from_json(fs.to_json()).cat_file(A) == b"aaaa"
    with fs.open(LARGE) as file:
        file.seek(1000)
        file.read(10)
        data = pickle.dumps(file)
        assert len(data) < 2000  # no content
        requests = served.requests.copy()
        other = pickle.loads(data)
        assert served.requests == requests
        assert other.read(10) == BIG[1010:1020]
        other.close()


def test_fsspec_opens_urls(served, monkeypatch):
    monkeypatch.setitem(fsspec.config.conf, "phonofs", {"socket": str(served.path)})
    with fsspec.open(f"phonofs://{A}") as file:
        assert file.read() == b"aaaa"
    files = fsspec.open_files("phonofs://work/2024/*/*/*.mp3")
    assert [each.path for each in files] == [A, LARGE]
