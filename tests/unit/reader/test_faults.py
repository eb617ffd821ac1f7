"""What the service does wrong, and what a reader gets: the right bytes, or an error in time."""

import hashlib
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio

from phonofs.errors import (
    Archived,
    Changed,
    Corrupt,
    Gone,
    Malformed,
    Refused,
    Unavailable,
    Untrusted,
)
from tests.support.reader_world import (
    KIB,
    LATENCY,
    MIB,
    Asked,
    FakeService,
    Fault,
    plain,
    record,
    world,
)


def first(count: int, fault: Fault):
    """The first requests have this fault."""
    return lambda asked, number: fault if number < count else None


async def test_a_failed_request_is_tried_again_with_pauses():
    """A reader that waits gets its bytes once the service is back; pauses grow."""
    service = FakeService(fault=first(4, Fault(error=Unavailable("503"))))
    async with world(service) as w:
        handle = w.reader.open(record(MIB), 7)
        await w.read_on(handle)
        at = [asked.at for asked in service.asked]
        pauses = [b - a - LATENCY for a, b in pairwise(at)]
        assert pauses == sorted(pauses)
        assert pauses[0] < 0.15
        assert w.reader.statistics()["failures"] == 4
        w.reader.release(handle)


async def test_a_cut_body_goes_on_from_the_byte_reached():
    """Nothing that came before the cut is fetched again, and the ETag goes along."""
    service = FakeService(fault=first(1, Fault(cut_after=512 * KIB)))
    async with world(service) as w:
        handle = w.reader.open(record(MIB), 7)
        await w.read_on(handle)
        assert [asked.start for asked in service.asked] == [0, 512 * KIB]
        assert service.sent() == MIB
        w.reader.release(handle)


async def test_retry_after_is_obeyed():
    """The next try comes no sooner than the service asked for."""
    service = FakeService(fault=first(1, Fault(error=Unavailable("429", retry_after_s=7))))
    async with world(service) as w:
        handle = w.reader.open(record(1000), 7)
        assert await w.read(handle, 0, 1000) == plain(0, 1000)
        assert service.asked[1].at - service.asked[0].at >= 7
        w.reader.release(handle)


async def test_a_pause_beyond_the_deadline_fails_at_once():
    """Who could not be served within read_deadline anyway is told right away."""
    service = FakeService(fault=first(99, Fault(error=Unavailable("429", retry_after_s=300))))
    async with world(service) as w:
        handle = w.reader.open(record(1000), 7)
        with pytest.raises(Unavailable, match="429"):
            await w.read(handle, 0, 1000)
        assert trio.current_time() - service.asked[0].at < 1
        w.reader.release(handle)


async def test_an_outage_ends_by_the_deadline_and_heals():
    """While the service is gone reads fail within 60 s; afterwards the same handle reads on."""
    out = True
    service = FakeService(fault=lambda asked, n: Fault(error=Unavailable("down")) if out else None)
    async with world(service) as w:
        handle = w.reader.open(record(MIB), 7)
        began = trio.current_time()
        with pytest.raises(Unavailable):
            await w.read(handle, 0, 1000)
        assert trio.current_time() - began <= 60
        assert len(service.asked) < 25
        out = False
        await w.read_on(handle)
        w.reader.release(handle)


@pytest.mark.promise("nobody-waits-for-ever")
async def test_a_connection_that_is_slow_for_ever_costs_one_deadline():
    """Bytes waited for in vain are asked for anew; who began to wait later gets them in time."""
    service = FakeService(chunk=4 * KIB, fault=first(1, Fault(rate=2000.0)))
    async with world(service) as w:
        handle = w.reader.open(record(4 * MIB), 7)

        async def later():
            await trio.sleep(30)
            await w.read_on(handle)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(later)
            with pytest.raises(Unavailable, match="did not come"):
                await w.read(handle, 200 * KIB, 1000)
            assert trio.current_time() == pytest.approx(60)
        assert trio.current_time() < 61
        assert len(service.asked) == 2
        assert service.asked[1].start > 50 * 2000  # what came is kept
        w.reader.release(handle)


@pytest.mark.parametrize("error", [Refused, Gone, Archived, Untrusted])
async def test_a_final_answer_reaches_the_reader_at_once(error):
    """What trying again does not help is said without a second request."""
    service = FakeService(fault=first(99, Fault(error=error("no"))))
    async with world(service) as w:
        handle = w.reader.open(record(64 * MIB), 7)
        with pytest.raises(error):
            await w.read(handle, 0, 1000)
        assert len(service.asked) == 1
        w.reader.release(handle)


async def test_answers_that_cannot_be_used_end_in_an_error():
    """A few useless answers are tried again, then the reader is told."""
    service = FakeService(fault=first(99, Fault(error=Malformed("html"))))
    async with world(service) as w:
        handle = w.reader.open(record(MIB), 7)
        with pytest.raises(Malformed):
            await w.read(handle, 0, 1000)
        assert len(service.asked) == 4
        w.reader.release(handle)


async def test_read_ahead_that_fails_is_not_insisted_on():
    """A part nobody waits for gives up after a failure; what was read is not harmed."""

    def fault(asked: Asked, number: int) -> Fault | None:
        return None if asked.urgent else Fault(error=Unavailable("503"))

    service = FakeService(fault=fault)
    async with world(service) as w:
        handle = w.reader.open(record(24 * MIB), 7)
        began = trio.current_time()
        await w.read_on(handle)
        assert service.sent() == 24 * MIB
        in_vain = sum(not asked.urgent for asked in service.asked)
        assert in_vain <= 8 * (1 + trio.current_time() - began)
        w.reader.release(handle)


@pytest.mark.expected_log("wrong content")
async def test_a_length_that_was_false_is_taken_back():
    """A wrong length with wrong content: the second fetch begins from what the record says.

    Nobody is told of it: the kernel would end the file there.
    """
    service = FakeService(fault=first(1, Fault(total=40_000)))
    async with world(service) as w:
        handle = w.reader.open(record(50_000), 7)
        assert await w.read(handle, 0, 131_072) == plain(0, 50_000)
        assert w.sizes == []
        w.reader.release(handle)


async def test_a_part_ends_where_it_meets_bytes_that_are_there():
    """Bytes that came to be present meanwhile are not fetched by a part under way."""
    async with world(FakeService(rate=1e6)) as w:
        handle = w.reader.open(record(3 * MIB, checksum=""), 7)
        await w.read(handle, 0, 1000)
        handle.content.entry.write(MIB, plain(MIB, 2 * MIB))
        await w.read_on(handle)
        assert w.service.sent() <= 2 * MIB + 64 * KIB
        w.reader.release(handle)


async def test_bytes_read_while_they_became_false_are_not_given():
    """What a thread read of a content that was taken away meanwhile is not given."""
    async with world(slow=True) as w:
        handle = w.reader.open(record(MIB), 7)
        await w.read_on(handle)
        entry = handle.content.entry
        really = entry.read

        async def slowly(offset: int, n: int) -> bytes | None:
            data = await really(offset, n)
            w.reader.withdraw("uk", "a")
            return data

        entry.read = slowly
        with pytest.raises(Gone):
            await w.read(handle, 0, 1000)
        w.reader.release(handle)


@pytest.mark.expected_log("wrong content")
async def test_a_wrong_content_is_fetched_once_more():
    """The read that completes the object gets the right bytes after a second fetch."""
    service = FakeService(fault=first(1, Fault(flip=40_000)))
    async with world(service) as w:
        handle = w.reader.open(record(50_000), 7)
        assert await w.read(handle, 0, 131_072) == plain(0, 50_000)
        assert service.sent() == 100_000
        assert w.wrong == [7]
        w.reader.release(handle)


@pytest.mark.promise("whole-is-checked")
@pytest.mark.expected_log("wrong content")
async def test_a_wrong_content_twice_is_an_error():
    """Wrong again after the second fetch: Corrupt, for this read and the next ones."""
    service = FakeService(fault=first(99, Fault(flip=40_000)))
    async with world(service) as w:
        handle = w.reader.open(record(50_000), 7)
        for _ in range(2):
            with pytest.raises(Corrupt):
                await w.read(handle, 0, 131_072)
        assert service.sent() == 100_000
        w.reader.release(handle)


@pytest.mark.promise("whole-is-checked")
@pytest.mark.expected_log("wrong content")
@pytest.mark.parametrize(("flip", "harmed"), [(300_000, True), (2_990_000, False)])
async def test_who_was_given_false_bytes_gets_no_more(flip, harmed):
    """A reader that was given bytes which turn out false gets an error, another one goes on."""
    service = FakeService(fault=first(1, Fault(flip=flip)))
    async with world(service) as w:
        handle = w.reader.open(record(3_000_000), 7)
        end = 22 * 131_072
        for offset in range(0, end, 131_072):
            await w.read(handle, offset, 131_072)
        if harmed:
            with pytest.raises(Corrupt):
                await w.read(handle, end, 131_072)
        else:
            assert await w.read(handle, end, 131_072) == plain(end, 3_000_000)
        again = w.reader.open(record(3_000_000), 7)
        await w.read_on(again)
        w.reader.release(handle)
        w.reader.release(again)


@pytest.mark.expected_log("wrong content")
async def test_a_long_file_is_checked_once_it_is_there():
    """Beyond 64 MiB bytes are given before the check; a mismatch harms later reads only."""
    flips = Fault(flip=66 * MIB)
    service = FakeService(fault=lambda asked, n: flips)
    async with world(service) as w:
        size = 70 * MIB
        checksum = hashlib.md5(plain(0, size)).hexdigest()
        handle = w.reader.open(record(size, checksum=checksum), 7)
        await w.read_blindly(handle)
        await trio.sleep(5)
        assert w.wrong == [7]
        again = w.reader.open(record(size, checksum=checksum), 7)
        await w.read_blindly(again)
        await trio.sleep(5)
        with pytest.raises(Corrupt):
            await w.read(again, 0, 1000)
        w.reader.release(handle)
        w.reader.release(again)


@pytest.mark.expected_log("wrong content")
async def test_what_passes_through_memory_is_hashed_on_its_way():
    """Without a cache on disk the last block of a long wrong file is not given."""
    flips = Fault(flip=20 * MIB)
    service = FakeService(fault=lambda asked, n: flips)
    async with world(service, in_memory=True) as w:
        handle = w.reader.open(record(40 * MIB), 7)
        await w.read(handle, 0, 128 * KIB)
        with pytest.raises(Corrupt):
            await w.read_blindly(handle)
        assert w.reader.statistics()["served_bytes"] < 40 * MIB
        w.reader.release(handle)


@pytest.mark.promise("one-version-a-handle")
async def test_another_version_in_between_makes_all_stale():
    """A changed ETag: the reader gets Changed, whoever opens it anew gets the new content."""

    def fault(asked: Asked, number: int) -> Fault | None:
        return Fault(etag="v2") if asked.start > 8 * MIB else None

    service = FakeService(fault=fault)
    async with world(service) as w:
        handle = w.reader.open(record(64 * MIB, checksum=""), 7)
        with pytest.raises(Changed):
            await w.read_on(handle)
        with pytest.raises(Changed):
            await w.read(handle, 0, 10)
        service.fault = lambda asked, number: Fault(etag="v2")
        again = w.reader.open(record(64 * MIB, checksum=""), 7)
        await w.read_on(again)
        assert w.wrong == [7]
        w.reader.release(handle)
        w.reader.release(again)


@pytest.mark.promise("real-length-wins")
@pytest.mark.parametrize("way", ["range", "stream"])
@pytest.mark.parametrize(("said", "real"), [(50_000, 40_000), (50_000, 60_000), (9 * MIB, 8 * MIB)])
async def test_the_real_length_wins(way, said, real):
    """The file gets the content's own length, is read to its real end, and others are told."""
    service = FakeService(way=way, sizes={"a": real})
    async with world(service) as w:
        handle = w.reader.open(record(said, checksum=""), 7)
        await w.read_on(handle)
        assert handle.size == real
        assert w.sizes == [(7, real)]
        assert await w.read(handle, real - 10, 100) == plain(real - 10, real)
        w.reader.release(handle)


async def test_only_whole_streams_read_in_sequence():
    """Where the service gives no ranges one stream fills the cache; each byte comes once."""
    async with world(FakeService(way="stream")) as w:
        handle = w.reader.open(record(24 * MIB), 7)
        await w.read_on(handle)
        assert len(w.service.asked) == 1
        again = w.reader.open(record(24 * MIB), 7)
        await w.read_on(again)
        assert w.service.sent() == 24 * MIB
        w.reader.release(handle)
        w.reader.release(again)


@pytest.mark.parametrize("known", [True, False])
async def test_only_whole_streams_a_seek_far_ahead_waits(known):
    """A seek ahead waits for the stream, a seek back is served from the cache."""
    async with world(FakeService(way="stream", known=known)) as w:
        handle = w.reader.open(record(100 * MIB), 7)
        await w.read(handle, 0, 1000)
        offset = 90 * MIB
        assert await w.read(handle, offset, 1000) == plain(offset, offset + 1000)
        assert trio.current_time() > 90 * MIB / 40e6 * 0.9
        assert len(w.service.asked) == 1
        assert w.reader.read_now(handle, 30 * MIB, 1000) == plain(30 * MIB, 30 * MIB + 1000)
        w.reader.release(handle)


async def test_only_whole_streams_found_out_by_a_seek():
    """An answer that begins at 0 although another offset was asked for is taken as it is."""
    async with world(FakeService(way="stream", known=False)) as w:
        handle = w.reader.open(record(30 * MIB), 7)
        assert await w.read(handle, 20 * MIB, 1000) == plain(20 * MIB, 20 * MIB + 1000)
        await w.read_on(handle)
        assert w.service.sent() == 30 * MIB
        w.reader.release(handle)


async def test_only_whole_streams_through_memory():
    """Without a disk a stream stays near its reader, and a seek back begins it anew."""
    async with world(FakeService(way="stream"), in_memory=True) as w:
        handle = w.reader.open(record(100 * MIB), 7)
        await w.read_on(handle, 0, 2 * MIB)
        await trio.sleep(1)
        assert w.service.sent() < 24 * MIB
        await w.read_on(handle, 2 * MIB, 64 * MIB)
        assert handle.content.entry.most_kept <= 24 * MIB
        assert await w.read(handle, MIB, 1000) == plain(MIB, MIB + 1000)
        assert len(w.service.asked) == 2
        w.reader.release(handle)


async def test_a_stream_nobody_reads_on_from_gives_its_connection_back():
    """A pause of a few seconds ends a stream through memory; going on begins it anew."""
    async with world(FakeService(way="stream"), in_memory=True) as w:
        handle = w.reader.open(record(100 * MIB), 7)
        await w.read_on(handle, 0, 2 * MIB)
        await trio.sleep(30)
        assert w.service.open_now == 0
        await w.read_on(handle, 2 * MIB, 30 * MIB)
        w.reader.release(handle)


async def test_a_single_whole_answer_does_not_cost_the_object():
    """Where parts are had, one whole answer to a far seek is refused and asked for again."""

    class Odd(FakeService):
        pass

    service = Odd()

    def fault(asked: Asked, number: int) -> Fault | None:
        service.way = "stream" if number == 3 else "range"
        return None

    service.fault = fault
    service.seekable = lambda region: True
    async with world(service) as w:
        handle = w.reader.open(record(300 * MIB), 7)
        for offset in (0, 100 * MIB, 200 * MIB, 250 * MIB, 150 * MIB):
            assert await w.read(handle, offset, 1000) == plain(offset, offset + 1000)
            await trio.sleep(1)
        assert service.sent() < 8 * MIB
        w.reader.release(handle)


async def test_bytes_lost_on_disk_are_fetched_again():
    """A block that fails its check in the cache is fetched, not given."""
    async with world() as w:
        handle = w.reader.open(record(30 * MIB), 7)
        await w.read_on(handle)
        entry = handle.content.entry
        entry.present.remove(5 * MIB, 6 * MIB)
        entry.slow = True
        await w.read_on(handle, 4 * MIB, 8 * MIB)
        assert w.service.sent() == 31 * MIB
        w.reader.release(handle)


async def test_no_room_anywhere_ends_in_an_error():
    """Where neither disk nor memory takes the bytes, the read fails by its deadline."""
    async with world() as w:
        handle = w.reader.open(record(30 * MIB), 7)
        handle.content.entry.write = lambda offset, data: None
        with pytest.raises(Unavailable):
            await w.read(handle, 0, 1000)
        assert len(w.service.asked) < 25
        w.reader.release(handle)


async def test_what_was_withdrawn_is_not_given():
    """An object the service took away: its open file gives nothing more."""
    async with world() as w:
        handle = w.reader.open(record(30 * MIB), 7)
        await w.read_on(handle, 0, MIB)
        w.reader.withdraw("uk", "a")
        with pytest.raises(Gone):
            await w.read(handle, 0, 1000)
        assert w.wrong == [7]
        w.reader.release(handle)


@pytest.mark.promise("a-fault-of-ours-is-eio")
@pytest.mark.expected_log("fault of phonofs")
async def test_a_fault_of_ours_reaches_the_reader_and_harms_nobody_else():
    """An unexpected exception in a fetch is the reader's to see; the reader room lives on."""
    service = FakeService(fault=first(1, Fault(error=ZeroDivisionError("oops"))))
    async with world(service) as w:
        handle = w.reader.open(record(MIB), 7)
        with pytest.raises(ZeroDivisionError):
            await w.read(handle, 0, 1000)
        await w.read_on(handle)
        w.reader.release(handle)


@pytest.mark.expected_log("wrong content")
async def test_false_bytes_through_memory_are_not_made_good_silently():
    """Without a disk too: who was given bytes that turn out false gets an error, others do not."""
    service = FakeService(fault=first(1, Fault(flip=0)))
    async with world(service, in_memory=True) as w:
        handle = w.reader.open(record(6 * MIB), 7)
        with pytest.raises(Corrupt, match="open the file again"):
            await w.read_blindly(handle)
        again = w.reader.open(record(6 * MIB), 7)
        await w.read_on(again)
        w.reader.release(handle)
        w.reader.release(again)


def by_node(start: int) -> str:
    """The ETag of the node that answers for a part."""
    return f"node-{start // MIB % 2}"


def of_nodes(asked: Asked, number: int) -> Fault:
    return Fault(etag=by_node(number * MIB))


@pytest.mark.promise("one-version-a-handle")
@pytest.mark.parametrize("size", [9 * MIB, 70 * MIB])
async def test_an_etag_that_differs_on_each_node(size):
    """Opened again and again, it can be read by the third time: the checksum decides."""
    service = FakeService(fault=of_nodes)
    checksum = hashlib.md5(plain(0, size)).hexdigest()
    async with world(service) as w:
        ends = []
        for _ in range(3):
            handle = w.reader.open(record(size, checksum=checksum), 7)
            try:
                await w.read_on(handle)
                ends.append("right")
            except Changed:
                ends.append("stale")
            w.reader.release(handle)
        assert ends[-1] == "right"
        assert ends.count("stale") <= 2


class Together(FakeService):
    """The first three answers come in the same moment."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.together = trio.Event()

    @asynccontextmanager
    async def content(self, *args, **options):
        async with super().content(*args, **options) as body:
            await self.together.wait()
            yield body


async def test_an_answer_of_before_a_replacement_says_nothing_of_after_it():
    """Three answers at once, of the old, the new and the old content: all is the new one."""
    etags = {0: "v1", 1: "v2", 2: "v1"}
    service = Together(fault=lambda asked, number: Fault(etag=etags.get(number, "v2")))
    async with world(service) as w:
        handles = [w.reader.open(record(40 * MIB, checksum=""), 7) for _ in range(3)]
        async with trio.open_nursery() as nursery:
            for place, handle in enumerate(handles):
                start = place * 12 * MIB
                nursery.start_soon(w.read_on, handle, start, start + MIB)
            await trio.sleep(1)
            assert len(service.asked) == 3
            service.together.set()
        for handle in handles:
            w.reader.release(handle)


async def test_an_etag_that_differs_on_each_node_through_memory():
    """What is too large to be held back until it was checked is read on as it comes."""
    size = 40 * MIB
    service = FakeService(fault=lambda asked, number: Fault(etag=f"node-{number % 2}"))
    async with world(service, in_memory=True) as w:
        for _ in range(2):
            handle = w.reader.open(record(size), 7)
            with pytest.raises(Changed):
                await w.read_on(handle)
            w.reader.release(handle)
        service.asked.clear()
        handle = w.reader.open(record(size), 7)
        await w.read_on(handle)
        w.reader.release(handle)
        assert service.sent() == size


async def test_an_etag_that_differs_on_each_node_without_a_checksum():
    """Nothing proves that all bytes are of one version: ESTALE, however often."""
    service = FakeService(fault=of_nodes)
    async with world(service) as w:
        for _ in range(4):
            handle = w.reader.open(record(9 * MIB, checksum=""), 7)
            await w.read(handle, 0, 128 * KIB)
            with pytest.raises(Changed):
                await w.read(handle, 8 * MIB, 128 * KIB)
            w.reader.release(handle)
            await trio.sleep(10)


@pytest.mark.promise("one-version-a-handle")
async def test_the_same_bytes_under_a_new_etag():
    """An open file goes on: what it was given and what it is given have the record's checksum."""
    service = FakeService()
    async with world(service) as w:
        handle = w.reader.open(record(20 * MIB), 7)
        await w.read_on(handle, 0, MIB)
        await trio.sleep(30)  # the response is given up
        service.fault = lambda asked, number: Fault(etag="v2")
        await w.read_on(handle, MIB)
        assert w.wrong == []
        w.reader.release(handle)


@pytest.mark.promise("one-version-a-handle")
async def test_other_bytes_under_a_new_etag():
    """The same, but the checksum says that it is not one version: ESTALE, no byte of the new."""
    service = FakeService()
    async with world(service) as w:
        handle = w.reader.open(record(20 * MIB), 7)
        await w.read_on(handle, 0, MIB)
        await trio.sleep(30)  # the response is given up
        service.fault = lambda asked, number: Fault(etag="v2", flip=15 * MIB)
        with pytest.raises(Changed):
            await w.read_on(handle, MIB)
        w.reader.release(handle)


async def test_a_file_that_was_replaced_before_anybody_got_a_byte_of_it():
    """What came of the old content goes; whoever opens the file then gets the new one."""
    service = FakeService(rate=100_000, latency_s=0.05)
    async with world(service) as w:
        handle = w.reader.open(record(3 * MIB, checksum=""), 7)
        with trio.move_on_after(0.3):
            await w.read(handle, 0, 128 * KIB)
        w.reader.release(handle)
        service.rate = 40_000_000
        service.fault = lambda asked, number: Fault(etag="v2")
        again = w.reader.open(record(3 * MIB, checksum=""), 7)
        await w.read_on(again, 2 * MIB)
        await w.read_on(again)
        w.reader.release(again)


async def test_a_length_is_not_looked_for_when_nobody_waits():
    """The second fetch of a large file ends soon after its last reader has gone."""
    service = FakeService(rate=4_000_000, sizes={"a": 100 * MIB})
    async with world(service) as w:
        handle = w.reader.open(record(90 * MIB, checksum=""), 7)
        with trio.move_on_after(5):
            await w.read(handle, 90 * MIB - 1000, 1000)
        assert service.looks == 1
        w.reader.release(handle)
        sent = service.sent()
        await trio.sleep(20)
        assert service.sent() - sent < 2 * MIB
        assert service.open_now == 0
