"""Faults of the service while content is read: right in the end, or an error in time."""

from dataclasses import replace

import pytest
import trio

from phonofs.errors import PhonofsError
from phonofs.fakeservice.content import ramp
from phonofs.fakeservice.options import Options
from tests.fault.scene import (
    KERNEL,
    RecordingKernel,
    all_of,
    fast,
    in_the_end_right,
    living,
    outcome,
    standing,
    thinned,
)
from tests.support.accounts import flat

pytestmark = pytest.mark.expected_log

SIZES = (1, 4095, 300_000, (6 << 20) + 17)
BYTES = ["content", "store", "presign"]
DEADLINE_S = 4.0
WAYS = ["range", "presign", "redirect", "stream"]

FAULTS = {
    "503": {"fail": "status", "status": 503},
    "502": {"fail": "status", "status": 502, "body": "<html>", "content_type": "text/html"},
    "500": {"fail": "status", "status": 500},
    "504": {"fail": "status", "status": 504},
    "429": {"fail": "status", "status": 429, "retry_after": 1},
    "429 with a date": {"fail": "status", "status": 429, "retry_after": "soon"},
    "418": {"fail": "status", "status": 418},
    "400": {"fail": "status", "status": 400},
    "401": {"fail": "status", "status": 401},
    "403": {"fail": "status", "status": 403},
    "404": {"fail": "status", "status": 404},
    "416": {"fail": "status", "status": 416},
    "204": {"fail": "status", "status": 204},
    "reset": {"fail": "reset"},
    "reset in the body": {"fail": "reset", "after": 5000},
    "cut": {"fail": "cut", "after": 0},
    "cut in the body": {"fail": "cut", "after": 70_000},
    "stall": {"fail": "stall"},
    "stall in the body": {"fail": "stall", "after": 3000},
    "drip": {"fail": "drip", "bytes_per_s": 100},
    "short": {"fail": "short", "by": 1},
    "long": {"fail": "long", "by": 7},
    "overrun": {"fail": "overrun", "by": 5},
    "another range": {"fail": "wrong_range", "by": 1},
    "whole": {"fail": "whole"},
    "etag": {"fail": "headers", "set": {"ETag": '"changed"'}},
    "flip": {"fail": "flip", "at": 777},
    "flip late": {"fail": "flip", "at": (6 << 20) + 1},
    "gzip": {"fail": "encoding"},
    "html": {"fail": "html"},
    "json": {"fail": "json", "value": {"error": "no"}},
    "redirect to itself": {"fail": "redirect"},
    "redirect to another host": {"fail": "redirect", "to": "https://127.0.0.2:9/x"},
    "redirect to metadata": {"fail": "redirect", "to": "http://169.254.169.254/latest"},
    "redirect to a file": {"fail": "redirect", "to": "file:///etc/passwd"},
    "redirect to nothing": {"fail": "redirect", "to": "://"},
    "tokens revoked": {"fail": "revoke"},
    "expired links": {"fail": "expired"},  # of the few that are asked for, all
}
LIARS = {"flip", "flip late", "short", "long", "etag"}
"""Faults under which the service says consistently what is not so."""


def rotated():
    """Every fault once, the ways and the kinds of cache in turns."""
    for number, name in enumerate(FAULTS):
        way = "presign" if name == "expired links" else WAYS[number % 4]
        yield name, way, ["1G", "0"][number // 4 % 2]


def kinds_of(name: str, way: str) -> list[str]:
    """A fault that needs a special answer goes where such answers are given."""
    if name == "expired links":
        return ["presign"]
    if name in ("another range", "whole"):
        return ["content"] if way in ("range", "stream") else ["store"]
    return BYTES


async def read_some(scene, ino):
    """A read in the middle and one at the end; only where nothing but right bytes can come."""
    truth = scene.truth(ino)
    handle = await scene.vfs.open(ino)
    try:
        for offset in (len(truth) // 2, max(0, len(truth) - 100)):
            data = await scene.piece(handle, offset, KERNEL)
            assert data == truth[offset : offset + KERNEL]
    except PhonofsError:
        pass
    finally:
        scene.vfs.release(handle)


async def under(tmp_path, name, way, cache_size, **select):
    if name == "expired links":
        select.pop("probability", None)
    rule = {"kind": kinds_of(name, way), "name": "fault", **FAULTS[name], **select}
    async with (
        standing(flat(*SIZES), Options(content=way)) as service,
        living(
            service,
            tmp_path,
            cache_size=cache_size,
            read_deadline=f"{DEADLINE_S:g}s",
            timeout="1.5s",
        ) as scene,
    ):
        files = (await scene.tree()).values()
        faults = scene.faults(rule)
        async with trio.open_nursery() as nursery:
            for ino in files if name not in LIARS else ():
                nursery.start_soon(read_some, scene, ino)
        ends = await all_of(scene, files, DEADLINE_S)
        never = name in ("another range", "whole") and way in ("stream", "range")
        assert faults.fired["fault"] or (never and faults.met["fault"])
        await in_the_end_right(scene, files, DEADLINE_S)
        if "probability" in select and name not in (*LIARS, "401", "403", "404", "etag"):
            assert "right" in ends.values(), ends
    return ends


@pytest.mark.parametrize(("name", "way", "cache_size"), thinned(rotated(), 3))
@fast
async def test_a_fault_of_every_answer(tmp_path, name, way, cache_size):
    """However every answer is wrong: an error in time, and never a wrong byte."""
    ends = await under(tmp_path, name, way, cache_size)
    assert set(ends.values()) - {"right"} or name in (
        "whole", "another range", "etag", "tokens revoked", "short", "long", "overrun",
        "416", "flip late", "expired links", "cut in the body", "reset in the body",
        "stall in the body", "redirect to itself", "drip",
    ), "nothing went wrong"  # fmt: skip


@pytest.mark.parametrize(("name", "way", "cache_size"), thinned(rotated(), 9))
@fast
async def test_a_fault_of_every_third_answer(tmp_path, name, way, cache_size):
    """Faults that pass are got over within the deadline."""
    await under(tmp_path, name, way, cache_size, probability=0.4)


@pytest.mark.promise("right-bytes-or-error")
@pytest.mark.slow
@pytest.mark.parametrize("cache_size", ["1G", "0", "5M"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FAULTS)
@fast
async def test_every_fault_on_every_way(tmp_path, name, way, cache_size):
    """The whole table."""
    if name == "expired links" and way != "presign":
        pytest.skip("only links expire")
    await under(tmp_path, name, way, cache_size, probability=0.5)


SIX = [
    {"fail": "status", "status": 503},
    {"fail": "status", "status": 502, "body": "<html>", "content_type": "text/html"},
    {"fail": "reset"},
    {"fail": "cut", "after": 20_000, "kind": BYTES},
    {"fail": "stall", "after": 1000},
    {"fail": "drip", "bytes_per_s": 100},
]


@pytest.mark.promise("right-bytes-or-error")
@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 12))]
)
@pytest.mark.parametrize("way", WAYS)
@fast
async def test_three_requests_in_ten_fail(tmp_path, way, seed):
    """In six ways, of all kinds: the whole tree is listed and every file read, with no error."""
    sizes = (100, 20_000, 300_000, (5 << 20) + 3) * 3
    async with (
        standing(flat(*sizes), Options(content=way, token_life_s=20)) as service,
        living(service, tmp_path, read_deadline="120s", timeout="1s") as scene,
    ):
        faults = scene.faults(
            *({"probability": 0.06, "name": str(n), **rule} for n, rule in enumerate(SIX)),
            seed=seed,
        )
        inodes = (await scene.walk()).values()
        ends = await all_of(scene, inodes, 120.0)
        assert set(ends.values()) == {"right"}
        assert len(inodes) == len(sizes)
        assert sum(faults.fired.values()) > 5


@pytest.mark.parametrize("way", ["range", "stream"])
@fast
async def test_a_false_length_never_reaches_the_tree(tmp_path, way):
    """A body that is shorter than it should, in all form: the file keeps its size throughout.

    The kernel would take the smaller size for the end of the file, and a copy would be half.
    """
    told = RecordingKernel()
    async with (
        standing(flat(300_000), Options(content=way)) as service,
        living(service, tmp_path, kernel=told) as scene,
    ):
        (ino,) = (await scene.tree()).values()
        faults = scene.faults(
            {"kind": "content", "fail": "short", "by": 100_000, "name": "short"}
            if way == "stream"
            else {"kind": "content", "fail": "status", "status": 416, "name": "short"}
        )
        assert await outcome(scene, ino, DEADLINE_S) != "right"
        assert faults.fired["short"]
        assert not told.resized, "the length was false"
        assert {change.record.size for change in told.changes} <= {300_000}
        await in_the_end_right(scene, [ino], DEADLINE_S)
        assert scene.vfs.entry(ino).size == 300_000


@fast
async def test_a_real_length_reaches_the_tree(tmp_path):
    """Where the record is wrong and the content proves it, the file gets the real size."""
    account = flat(300_000, 300_000)
    for item, real in zip(list(account), (200_000, 400_000), strict=True):
        account.put(replace(item, content=ramp(item.id, real), size=300_000))
    async with standing(account) as service, living(service, tmp_path) as scene:
        for ino, real in zip((await scene.tree()).values(), (200_000, 400_000), strict=True):
            assert await outcome(scene, ino, DEADLINE_S) == "right"
            assert scene.vfs.entry(ino).size == real
