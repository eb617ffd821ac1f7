"""Faults of the network between phonofs and the service: right in the end, or an error in time.

See :mod:`tests.fault.network`; what the service itself does wrong is in ``test_content.py``.
"""

import errno
import os
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio

from phonofs.errors import PhonofsError
from phonofs.fakeservice.options import Options
from tests.fault.network import before, networked
from tests.fault.scene import (
    KERNEL,
    all_of,
    fast,
    in_the_end_right,
    living,
    outcome,
    standing,
    thinned,
    until,
)
from tests.fault.tools import quiet, reading, status
from tests.support.accounts import content_of, flat
from tests.support.mounts import files, mounted
from tests.support.mounts import until as happens
from tests.support.timing import Stopwatch

pytestmark = pytest.mark.expected_log

SIZES = (1, 4095, 300_000, (6 << 20) + 17)
DEADLINE_S = 4.0
WAYS = ["range", "presign", "redirect", "stream"]
MASKS = [1, 4, 32, 128]
CONTENT = {"path": "*/objects/*[0-9]*"}
"""Requests for bytes, of the service or of the store; not searches, which have no checksum."""

FAULTS = {
    "delay": {"fail": "delay", "seconds": 0.6},
    "delay beyond the timeout": {"fail": "delay", "seconds": 3},
    "drip": {"fail": "drip", "bytes_per_s": 2000},
    "cut before the answer": {"fail": "cut"},
    "cut in the head": {"fail": "cut", "after": 30},
    "cut in the body": {"fail": "cut", "after": 4000},
    "cut late": {"fail": "cut", "after": 200_000},
    "reset before the answer": {"fail": "rst"},
    "reset in the head": {"fail": "rst", "after": 100},
    "reset in the body": {"fail": "rst", "after": 70_000},
    "hole": {"fail": "hole"},
    "hole in the head": {"fail": "hole", "after": 17},
    "hole in the body": {"fail": "hole", "after": 3000},
    "hole late": {"fail": "hole", "after": 250_000},
    "half-close": {"fail": "half-close"},
    "half-close in the body": {"fail": "half-close", "after": 100_000},
    "flip in the status": {"fail": "flip", "part": "head", "at": 9, **CONTENT},
    "flip in the head": {"fail": "flip", "part": "head", "at": 60, **CONTENT},
    "flip in the body": {"fail": "flip", "at": 0, "mask": 0x80, **CONTENT},
    "flip late": {"fail": "flip", "at": 250_000, **CONTENT},
}


HOPELESS = {
    "delay beyond the timeout", "cut before the answer", "cut in the head", "hole",
    "reset before the answer", "reset in the head", "hole in the head", "half-close",
    "flip in the status", "flip in the body",
}  # fmt: skip
"""Where every answer has these, no try gets any further than the one before."""
IN_A_PAGE = [name for name, fault in FAULTS.items() if fault.get("after", 0) <= 4000][:-4]
"""Those that a page of a listing is long enough for, and that have not to be found in it."""


def rotated():
    """Every fault once, the ways and the kinds of cache in turns."""
    for number, name in enumerate(FAULTS):
        yield name, WAYS[number % 4], ["1G", "0"][number // 4 % 2]


async def under(tmp_path, name, way, cache_size, **select):
    async with (
        standing(flat(*SIZES), Options(content=way)) as service,
        before(service) as network,
        living(
            service,
            tmp_path,
            cache_size=cache_size,
            read_deadline=f"{DEADLINE_S:g}s",
            timeout="1.5s",
        ) as scene,
    ):
        inodes = (await scene.tree()).values()
        network.faults({**FAULTS[name], "name": "fault", **select})
        ends = await all_of(scene, inodes, DEADLINE_S)
        assert network.fired["fault"]
        network.faults()
        await in_the_end_right(scene, inodes, DEADLINE_S)
        assert network.open <= 16  # max_connections
    return ends


@pytest.mark.parametrize(("name", "way", "cache_size"), thinned(rotated(), 2))
@fast
async def test_a_network_that_always_fails(tmp_path, name, way, cache_size):
    """However every answer is spoiled: an error in time, never a wrong byte; then recovery."""
    ends = await under(tmp_path, name, way, cache_size)
    assert set(ends.values()) - {"right"} or name not in HOPELESS, ends


@pytest.mark.parametrize(("name", "way", "cache_size"), thinned(rotated(), 5))
@fast
async def test_a_network_that_fails_at_times(tmp_path, name, way, cache_size):
    """What passes is got over within the deadline."""
    ends = await under(tmp_path, name, way, cache_size, count=3)
    assert "right" in ends.values()


@pytest.mark.promise("right-bytes-or-error")
@pytest.mark.slow
@pytest.mark.parametrize("cache_size", ["1G", "0", "5M"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FAULTS)
@fast
async def test_every_fault_of_the_network_on_every_way(tmp_path, name, way, cache_size):
    """The whole table."""
    await under(tmp_path, name, way, cache_size, probability=0.5)


@pytest.mark.promise("whole-is-checked")
@pytest.mark.parametrize(("at", "end"), [(123_456, "Corrupt"), (299_000, "right")])
@pytest.mark.parametrize("way", WAYS)
@fast
async def test_a_flipped_bit_is_found(tmp_path, expected_log, way, at, end):
    """One bit of a file with a checksum: in a block that was given, an error; in the last, none.

    It is flipped once, so what was fetched again is right, and nothing but the check found it.
    """
    async with (
        standing(flat(300_000), Options(content=way)) as service,
        before(service) as network,
        living(service, tmp_path) as scene,
    ):
        (ino,) = (await scene.tree()).values()
        network.faults({"fail": "flip", "at": at, "count": 1, **CONTENT})
        assert await outcome(scene, ino, 20.0) == end
        assert network.fired["flip"] == 1
        assert [line for line in expected_log.seen if "wrong content and is fetched again" in line]
        assert await outcome(scene, ino, 20.0) == "right"


@pytest.mark.parametrize(
    ("way", "mask", "step"),
    [
        ("range", 1, 4),
        *(pytest.param(w, m, 1, marks=pytest.mark.slow) for w in WAYS for m in MASKS),
    ],
)
@fast
async def test_each_byte_of_a_head_flipped(tmp_path, way, mask, step):
    """Wherever in a head a bit is wrong: right or an error in time, and no size becomes false."""
    size, longest = 2048, 400
    async with (
        standing(flat(*[size] * longest), Options(content=way)) as service,
        before(service) as network,
        living(service, tmp_path, cache_size="0", read_deadline="4s", timeout="1s") as scene,
    ):
        inodes = list((await scene.tree()).values())
        random.Random(mask).shuffle(inodes)  # so that none is brought ahead
        ends = []
        for at in range(0, longest, step):
            network.faults({"fail": "flip", "part": "head", "at": at, "mask": mask, **CONTENT})
            ends.append(await outcome(scene, inodes[at], 4.0))
            if not network.fired and at > 150:
                break  # beyond the end of the head
        assert len(ends) * step > 150
        assert set(ends) > {"right"}, "no flip mattered"
        network.faults()
        for first in range(0, at, 20):
            await in_the_end_right(scene, inodes[first : first + 20], 4.0)
        assert {scene.vfs.entry(ino).size for ino in inodes} == {size}


@pytest.mark.promise("listing-whole-or-error")
@pytest.mark.parametrize("name", thinned(IN_A_PAGE, 4))
@fast
async def test_listing_over_a_failing_network(tmp_path, name):
    """The whole tree or an error in time, never part of a day; in the end all of it."""
    account = flat(*[1000] * 230)  # three pages
    async with (
        standing(account) as service,
        before(service) as network,
        living(service, tmp_path, read_deadline="5s", timeout="1.5s") as scene,
    ):
        network.faults({**FAULTS[name], "name": "fault", "count": 3})
        try:
            with trio.fail_after(4 * (5 + 1) + 5):
                assert len(await scene.walk()) == 230
        except PhonofsError:
            pass
        assert network.fired["fault"]
        network.faults()

        async def all_there():
            return len(await scene.tree()) == 230

        await until(all_there, 100, 1)


@fast
async def test_refused_for_a_while(tmp_path):
    """Nobody listens: what is cached goes on, who waits gets its bytes when the door opens."""
    async with (
        standing(flat(5000, 6000, 7000)) as service,
        before(service) as network,
        living(service, tmp_path, read_deadline="30s", timeout="2s") as scene,
    ):
        first, second, cached = (await scene.tree()).values()  # the last: nothing is brought ahead
        assert await outcome(scene, cached, 5.0) == "right"
        await network.refuse()
        assert network.open == 0
        ends = []

        async def waiting(ino):
            ends.append(await outcome(scene, ino, 30.0))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiting, first)
            nursery.start_soon(waiting, second)

            async def met():
                return scene.app.status.document()["service"]["errors"].get("Unavailable", 0) >= 3

            await until(met, 30, 0.2)
            assert await outcome(scene, cached, 0.5) == "right"
            assert ends == []
            await network.admit()
        assert ends == ["right", "right"]
        assert network.fired["refuse"] == 1


@fast
async def test_refused_for_longer_than_the_deadline(tmp_path):
    """A read gives up by its deadline; the next one after the outage is right by itself."""
    async with (
        standing(flat(5000)) as service,
        before(service) as network,
        living(service, tmp_path, read_deadline="4s", timeout="1s") as scene,
    ):
        (ino,) = (await scene.tree()).values()
        await network.refuse()
        assert await outcome(scene, ino, 4.0) == "Unavailable"
        await network.admit()
        await in_the_end_right(scene, [ino], 4.0)


@fast
async def test_kept_connections_that_went_dead(tmp_path):
    """All that are kept swallow what is sent, as after a change of networks: got over in time."""
    async with (
        standing(flat(*[3 << 20] * 6), Options(token_life_s=5)) as service,
        before(service) as network,
        living(service, tmp_path, read_deadline="60s", timeout="1s") as scene,
    ):
        *others, last = (await scene.tree()).values()
        assert await outcome(scene, last, 20.0) == "right"
        kept = network.open
        assert kept
        network.faults({"fail": "hole", "count": kept})
        assert set((await all_of(scene, others, 60.0)).values()) == {"right"}
        assert network.fired["hole"]
    assert network.open == 0


# On a real mount


ON_A_MOUNT = [
    {"fail": "delay", "seconds": 0.3},
    {"fail": "cut", "after": 50_000},
    {"fail": "rst", "after": 9000},
    {"fail": "hole"},
    {"fail": "hole", "after": 5000},
    {"fail": "half-close", "after": 300},
    {"fail": "flip", "at": 5000},
    {"fail": "flip", "part": "head", "at": 9},
    {"fail": "drip", "bytes_per_s": 1000},
]
EACH = 3
MOUNT_DEADLINE_S = 2.0


def read(path):
    """The bytes, or None for EIO; each read of it in time."""
    pieces, piece = [], b"-"
    with path.open("rb", buffering=0) as file:
        while piece:
            watch = Stopwatch()
            try:
                piece = file.read(KERNEL)
            except OSError as error:
                return None if error.errno == errno.EIO else error
            finally:
                assert watch.within(MOUNT_DEADLINE_S + 1.5)
            pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.promise("right-bytes-or-error")
@pytest.mark.fuse
def test_a_mount_over_a_failing_network(tmp_path):
    """Each fault for some files: right or EIO in time, all else answers; then all can be read."""
    ids = [f"{number:08d}" for number in range(EACH * len(ON_A_MOUNT))]
    options = {"read_deadline": f"{MOUNT_DEADLINE_S}s", "timeout": "1s", "cache_size": "0"}
    with (
        networked(flat(*[200_000] * len(ids))) as stand_in,
        mounted(stand_in.url, tmp_path, **options) as mount,
        ThreadPoolExecutor(len(ids)) as pool,
    ):
        paths = files(mount.point)
        truth = [content_of(stand_in.service, id) for id in ids]
        stand_in.network.faults(
            *(
                {**ON_A_MOUNT[number // EACH], "name": id, "path": f"*/{id}/content*"}
                for number, id in enumerate(ids)
            )
        )
        reads = [pool.submit(read, path) for path in paths]
        happens(lambda: len(stand_in.network.fired) == len(ids))
        watch = Stopwatch()
        assert len(os.listdir(paths[0].parent)) == len(paths)
        assert status(mount)["pid"] == mount.process.pid
        assert watch.within(1)
        ends = [one.result() for one in reads]
        assert [
            id for id, end, data in zip(ids, ends, truth, strict=True) if end not in (data, None)
        ] == []
        assert {number // EACH for number, end in enumerate(ends) if end is None} >= {3, 4, 5, 6, 8}
        stand_in.network.faults()
        for path, data in zip(paths, truth, strict=True):
            happens(lambda path=path, data=data: read(path) == data)
        happens(lambda: quiet(mount))
        assert "Traceback" not in mount.log_text()


@pytest.mark.promise("clean-stop")
@pytest.mark.fuse
def test_a_mount_in_a_black_hole_ends_at_once(tmp_path):
    """Readers, a listing and the token wait for a network that swallows all: SIGTERM is obeyed."""
    with networked(flat(*[3 << 20] * 5)) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        paths = files(mount.point)
        stand_in.network.faults({"fail": "hole"})
        stand_in.service.tokens.revoke()
        with reading((path, 0, 1000) for path in paths) as readers:
            happens(lambda: stand_in.network.fired["hole"] >= 2)
            watch = Stopwatch()
            assert mount.stop() == 0
            assert watch.within(5)
            assert all(got < 0 for got, _ in readers.ends())
        happens(lambda: stand_in.network.open == 0)


@pytest.mark.promise("known-stays-without-the-service")
@pytest.mark.fuse
def test_a_mount_that_nobody_answers_for_a_while(tmp_path):
    """Connections are refused and come back: a waiting reader gets its bytes, with no error."""
    with (
        networked(flat(5000, 6000)) as stand_in,
        mounted(stand_in.url, tmp_path, timeout="1s") as mount,
    ):
        path, cached = files(mount.point)
        assert len(cached.read_bytes()) == 6000
        stand_in.refuse()
        with reading([(path, 0, 5000)]) as readers:
            happens(lambda: status(mount)["service"]["errors"].get("Unavailable", 0) >= 2)
            assert len(cached.read_bytes()) == 6000
            stand_in.admit()
            ((got, _),) = readers.ends()
        assert got == 5000
        assert path.read_bytes() == content_of(stand_in.service, "00000000")
