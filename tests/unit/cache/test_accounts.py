"""What other accounts left in a cache folder: removed for good, or said and counted."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from phonofs.account import choose
from phonofs.cache import maintenance
from phonofs.cache.accounts import MOST_ACCOUNTS, Account, Accounts, key_hash
from phonofs.cache.blocks import BLOCK
from phonofs.cache.cache import Cache
from phonofs.cache.codec import AesGcmCodec
from phonofs.cache.set_aside import SetAside
from phonofs.catalogue.catalogue import Catalogue, TreeOptions
from phonofs.cli import group, run
from phonofs.config import Secret
from phonofs.config.load import load
from phonofs.credentials import Credentials
from tests.support.caching import PLENTY, fill, open_cache, ramp, record
from tests.support.timing import FairClock

URL = "https://api.example.com"
SIZE = 5 * BLOCK


@contextmanager
def disk_of(folder: Path) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def used_by(folder: Path, name: str, objects: int = 3) -> None:
    """What a mount of an account leaves behind."""
    accounts = Accounts.open(folder)
    hashed = key_hash(URL, name)
    account = accounts.of_key(hashed) or accounts.add(hashed, URL)
    accounts.begin(account, URL)
    home = accounts.home(account)

    async def read() -> None:
        cache = open_cache(home)
        for n in range(objects):
            wanted = record(f"{name}{n}", ramp(SIZE, n))
            fill(cache, wanted, ramp(SIZE, n))
        cache.close()

    trio.run(read)
    (home / "catalogue.sqlite").write_bytes(b"names of " + name.encode())
    accounts.end(account, frozenset({name}), None)
    accounts.close()


def account_of(accounts: Accounts, name: str) -> Account:
    found = accounts.of_key(key_hash(URL, name))
    assert found is not None
    return found


def lies_in(folder: Path) -> int:
    return sum(p.lstat().st_blocks * 512 for p in folder.rglob("??/*") if p.is_file())


def cache_command(capsys, monkeypatch, folder: Path, *words: str) -> tuple[int, str, str]:
    monkeypatch.setenv("PHONOFS_CACHE_DIR", str(folder))
    for name in ("PHONOFS_KEY", "PHONOFS_SECRET", "PHONOFS_API_URL"):
        monkeypatch.delenv(name, raising=False)
    status = run(group, "phonofs", ["cache", *words])
    out, err = capsys.readouterr()
    return status, out, err


@contextmanager
def stuck(folder: Path) -> Iterator[None]:
    """A disk that gives up nothing below a folder, but takes writes elsewhere."""
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Path]:
    """A folder that A used first and B last, on a disk of its own."""
    with disk_of(tmp_path / "disk"):
        folder = tmp_path / "disk" / "cache"
        used_by(folder, "A")
        used_by(folder, "B")
        yield folder


@pytest.mark.parametrize("what", ["content", "catalogue.sqlite"])
def test_clear_says_what_it_could_not_remove(two: Path, what: str, capsys, monkeypatch):
    """Of another account: exit 1 with the reason; it is removed once the disk lets it go."""
    stubborn = two / what
    with stuck(stubborn):
        status, out, err = cache_command(capsys, monkeypatch, two, "clear")
        assert (status, len(err.splitlines())) == (1, 1), (out, err)
        assert "cannot be emptied" in err
        assert "removed what was set aside" not in out
    accounts = Accounts.open(two)
    assert account_of(accounts, "A").top, "what is left of it is still its own"
    accounts.close()
    status, out, err = cache_command(capsys, monkeypatch, two, "clear")
    assert (status, err) == (0, "")
    assert not list(two.glob("content/??/*"))
    assert not (two / "catalogue.sqlite").exists()


def test_a_link_in_what_is_set_aside_is_removed_and_not_followed(two: Path, capsys, monkeypatch):
    """Also one to a folder."""
    elsewhere = two.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("kept")
    (two / "content" / "link").symlink_to(elsewhere)
    status, _, err = cache_command(capsys, monkeypatch, two, "clear")
    assert (status, err) == (0, "")
    assert not (two / "content").exists()
    assert (elsewhere / "kept").exists()


@pytest.mark.expected_log("cannot be removed")
def test_what_cannot_be_removed_goes_on_to_be_counted(two: Path):
    """It lies on disk, so it is charged for; the account is not forgotten, and this one's goes."""
    accounts = Accounts.open(two)
    mine = account_of(accounts, "B")
    with stuck(two / "content"):
        aside = SetAside(accounts, mine)
        before = aside.bytes
        assert before >= 3 * SIZE
        assert aside.evict(1 << 30) == 0
        assert aside.bytes == before
    assert account_of(accounts, "A").top
    again = SetAside(accounts, mine)
    assert again.evict(1 << 30) == before
    assert again.bytes == 0
    assert not (two / "content").exists()
    accounts.close()


@pytest.mark.expected_log("content is left")
def test_content_that_must_not_stay_and_cannot_go_is_said(two: Path, expected_log):
    """cache_size=0 on a disk that gives nothing up."""
    accounts = Accounts.open(two)
    mine = account_of(accounts, "B")
    with stuck(two / "content"):
        cache = Cache.open(
            accounts.home(mine),
            size_bytes=0,
            min_free_bytes=0,
            set_aside=SetAside(accounts, mine),
        )
        assert any("content is left" in line for line in expected_log.seen)
        cache.close()
    accounts.close()


@pytest.mark.parametrize("lost", [False, True])
def test_with_encryption_no_plain_content_of_others_stays(tmp_path: Path, lost: bool):
    """Not even if the index that says how it was written is lost."""
    used_by(tmp_path, "A")
    used_by(tmp_path, "B")
    accounts = Accounts.open(tmp_path)
    mine, other = account_of(accounts, "B"), accounts.home(account_of(accounts, "A"))
    assert lies_in(other / "content")
    for file in (other / "content").glob("index.sqlite*") if lost else ():
        file.unlink()
    Cache.open(
        accounts.home(mine),
        size_bytes=PLENTY,
        min_free_bytes=0,
        codec=AesGcmCodec(b"k" * 32),
        set_aside=SetAside(accounts, mine),
    ).close()
    assert not lies_in(other / "content")
    accounts.close()


def test_a_note_that_the_disk_takes_in_parts_is_whole(tmp_path: Path, monkeypatch):
    """As one that is nearly full does."""
    used_by(tmp_path, "A")
    accounts = Accounts.open(tmp_path)
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:10]) if data else 0)
    accounts.admit(key_hash(URL, "A2"), account_of(accounts, "A"))
    monkeypatch.undo()
    accounts.close()
    accounts = Accounts.open(tmp_path)
    assert account_of(accounts, "A").top
    accounts.close()


def test_a_catalogue_beside_nothing_else_is_somebodys(tmp_path: Path):
    """The log or the damaged file of a catalogue that is gone: never the next account's."""
    for name in ("catalogue.sqlite-wal", "catalogue.sqlite.damaged-20260101-000000"):
        folder = tmp_path / name
        folder.mkdir(mode=0o700)
        (folder / name).write_bytes(b"names")
        accounts = Accounts.open(folder)
        assert [one.top for one in accounts.all()] == [True]
        accounts.close()


def test_eviction_in_vain_evicts_nothing(two: Path):
    """Files that a lost index left are charged as the whole cap until they are gone: nothing that
    is evicted meanwhile frees space.
    """
    accounts = Accounts.open(two)
    mine = account_of(accounts, "B")
    home = accounts.home(mine)
    shard = home / "content" / "ab"
    shard.mkdir(exist_ok=True)
    for n in range(1100):
        (shard / f"{n}").write_bytes(b"x")
    (home / "content" / "index.sqlite").unlink()
    aside = SetAside(accounts, mine)
    before = aside.bytes

    async def work() -> None:
        cache = Cache.open(home, size_bytes=PLENTY, min_free_bytes=0, set_aside=aside)
        fill(cache, record("new", ramp(SIZE, 9)), ramp(SIZE, 9))
        assert list(shard.iterdir())
        assert aside.bytes == before
        async with trio.open_nursery() as nursery:
            nursery.start_soon(maintenance.run, cache)
            with trio.fail_after(20):
                while cache.statistics()["disk_bytes"] != before:  # noqa: ASYNC110 - tells nobody
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        assert not list(shard.iterdir())
        fill(cache, record("newer", ramp(SIZE, 9)), ramp(SIZE, 9))
        assert cache.cached_bytes(record("newer", ramp(SIZE, 9))) == SIZE
        cache.close()

    trio.run(work, clock=FairClock(1))
    accounts.close()


def test_the_accounts_of_a_folder_are_bounded(tmp_path: Path):
    """The one used longest ago goes, with all that it left."""
    names = "ABCDEFGHIJ"
    for name in names:
        used_by(tmp_path, name, objects=1)
    accounts = Accounts.open(tmp_path)
    left = sorted(customer for one in accounts.all() for customer in one.customers)
    assert left == list(names[-MOST_ACCOUNTS:])
    assert len(list(tmp_path.rglob("catalogue.sqlite"))) == MOST_ACCOUNTS
    accounts.close()


def test_the_keys_of_an_account_are_bounded(tmp_path: Path, monkeypatch):
    """The newest are remembered, and the one in use is one of them."""
    monkeypatch.setattr("phonofs.cache.accounts.MOST_KEYS", 3)
    accounts = Accounts.open(tmp_path)
    account = accounts.add("first", URL)
    for key in ("second", "third", "first", "fourth"):
        accounts.admit(key, account)
    assert accounts.keys_of(account) == ["third", "first", "fourth"]
    accounts.close()


@pytest.mark.expected_log("cannot be emptied")
def test_an_empty_account_that_cannot_be_removed_stops_no_mount(tmp_path: Path):
    """It is left there, and the new key gets an account of its own."""
    with disk_of(tmp_path / "disk"):
        settings = load("default", [f"cache_dir={tmp_path}/disk/cache,api_url={URL}"])
        accounts = Accounts.open(settings.cache_dir)
        first = accounts.add(key_hash(URL, "A"), URL)
        path = accounts.home(first) / "catalogue.sqlite"
        Catalogue.open(path, TreeOptions.of(settings)).close()
        subprocess.run(["mount", "--bind", path, path], check=True)  # it cannot be unlinked

        async def learn(credentials: Credentials) -> frozenset[str]:
            return frozenset({"B"})

        try:
            chosen = trio.run(choose, accounts, settings, Credentials("B", Secret("s")), learn)
        finally:
            subprocess.run(["umount", "-l", path], check=True)
        assert not chosen.account.top
        assert account_of(accounts, "A").top
        accounts.close()
