"""``phonofs cache``: what it shows, finds and removes."""

import pytest
import trio

from phonofs.cache.cache import Cache
from phonofs.cli import group, run
from tests.support.caching import file_of, ramp, record, stored

SIZE = 200_000


def record_of(number: int):
    return record(f"object-{number}", ramp(SIZE, number))


async def filled(folder, count: int) -> None:
    for number in range(count):
        await stored(folder, record_of(number), ramp(SIZE, number))


def phonofs(capsys, monkeypatch, folder, *words: str) -> tuple[int, str, str]:
    monkeypatch.setenv("PHONOFS_CACHE_DIR", str(folder))
    status = run(group, "phonofs", ["cache", *words])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_show_counts_and_lists(tmp_path, capsys, monkeypatch):
    """Objects, whole ones, bytes and the cap; each with its id on request."""
    trio.run(filled, tmp_path, 3)
    status, out, _ = phonofs(capsys, monkeypatch, tmp_path, "show", "--list")
    assert status == 0
    assert "3 objects" in out
    assert "object-1" in out


def test_one_object_is_no_plural(tmp_path, capsys, monkeypatch):
    trio.run(filled, tmp_path, 1)
    said = [phonofs(capsys, monkeypatch, tmp_path, what)[1] for what in ("show", "verify", "clear")]
    assert [out.partition(",")[0] for out in said] == [
        "1 object",
        "1 object checked",
        "1 object removed",
    ]


def test_clear_empties_it(tmp_path, capsys, monkeypatch):
    """Nothing of the content is left."""
    trio.run(filled, tmp_path, 3)
    assert phonofs(capsys, monkeypatch, tmp_path, "clear")[0] == 0
    assert "0 objects" in phonofs(capsys, monkeypatch, tmp_path, "show")[1]


def test_no_cache_is_one_sentence(tmp_path, capsys, monkeypatch):
    """A folder that is not there, and a cache in use."""
    status, _, err = phonofs(capsys, monkeypatch, tmp_path / "none", "show")
    assert (status, "there is no cache" in err) == (1, True)
    status, out, _ = phonofs(capsys, monkeypatch, tmp_path / "none", "clear")
    assert (status, "There is no cache" in out) == (0, True)  # as empty as it was to be
    cache = Cache.open(tmp_path, size_bytes=1 << 30, min_free_bytes=0)
    status, _, err = phonofs(capsys, monkeypatch, tmp_path, "show")
    cache.close()
    assert (status, len(err.splitlines())) == (1, 1)


@pytest.mark.expected_log("the cache lost the bytes")
def test_damage_is_found_and_removed(tmp_path, capsys, monkeypatch):
    """A flipped bit is reported with the object's id and removed: the next check is clean."""
    trio.run(filled, tmp_path, 2)
    path = file_of(tmp_path, record_of(0))
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    status, out, _ = phonofs(capsys, monkeypatch, tmp_path, "verify")
    assert (status, "object-0" in out, "1 damaged" in out) == (1, True, True)
    assert phonofs(capsys, monkeypatch, tmp_path, "verify")[0] == 0
