"""What the service sends is bounded: in bytes, depth, count, size and date, and never unpacked."""

import gzip
import json
import tracemalloc
from collections.abc import AsyncIterator

import httpx
import pytest

from phonofs.errors import Malformed, ServiceError
from phonofs.model import Query
from phonofs.service import record_limits as bounds
from phonofs.service.oauth import parse_grant
from phonofs.service.records import parse_page, parse_record
from tests.support.service_world import Service, connected, record_json


def page(*records: object) -> bytes:
    return json.dumps({"lastPage": True, "pageKey": 1, "content": list(records)}).encode()


@pytest.mark.parametrize("depth", [1_000, 100_000, 5_000_000])
@pytest.mark.parametrize("around", ["[%s]", '{"content":%s}', '{"content":[{"tags":%s}]}'])
def test_nested_json_is_an_error_and_not_a_crash(depth, around):
    """However deep: the stack is not ours to lose."""
    body = (around % ("[" * depth + "]" * depth)).encode()
    for parse in (parse_page, parse_record):
        try:
            parse(body, "uk")
        except Malformed:
            continue
    with pytest.raises(ServiceError):
        parse_grant(body)


@pytest.mark.parametrize(
    "size", [-1, 10**30, 2**63, 1e400, "NaN", "-0x1", [], bounds.LARGEST_OBJECT + 1]
)
def test_sizes_beyond_reason_set_the_record_aside(size):
    """The file is not there, rather than a wrong length; its neighbours are."""
    found = parse_page(page(record_json("a", storedBytes=size), record_json("b")), "uk")
    assert [each.id for each in found.records] == ["b"]
    assert len(found.rejected) == 1


@pytest.mark.parametrize(
    "date", ["9999-12-31T23:59:59", "0001-01-01T00:00:00", "-1", "1e99", "x" * 10**6]
)
def test_dates_beyond_reason(date):
    """Set aside; the sentence that says so does not repeat what was sent."""
    found = parse_page(page(record_json("a", createdTime=date)), "uk")
    assert all(0 <= each.created_ms < 2**53 for each in found.records)
    assert all(len(each) < 500 for each in found.rejected)


def test_a_record_is_bounded():
    """In bytes and in tags."""
    tags = [{"key": f"k{n}", "value": "v"} for n in range(10 * bounds.MOST_TAGS)]
    for odd in (record_json("a", tags=tags), record_json("a", objectName="x" * (2 << 20))):
        found = parse_page(page(odd, record_json("b")), "uk")
        assert "b" in [each.id for each in found.records]
        for each in found.records:
            assert len(each.tags) <= bounds.MOST_TAGS
            assert len(each.source) <= bounds.LARGEST_RECORD


async def test_a_page_without_end_is_cut_off():
    """A body longer than any page is given up at the limit, and not kept."""
    service = Service()
    body = Endless()
    service.answers = [lambda request: httpx.Response(200, stream=body)] * 9
    async with connected(service) as client:
        tracemalloc.start()
        with pytest.raises(ServiceError):
            await client.client.search("uk", Query())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert body.sent <= 3 * (bounds.largest_page(100) + (2 << 20)), "of 100, 10 and 1 record"
    assert peak < 16 << 20


async def test_nothing_is_ever_unpacked():
    """A compressed body is refused as it is: a bomb of a megabyte never becomes a gigabyte."""
    bomb = gzip.compress(bytes(64 << 20))
    service = Service()
    headers = {"Content-Encoding": "gzip", "Content-Type": "audio/mpeg"}
    service.answers = [httpx.Response(200, headers=headers, stream=Raw(bomb))] * 3
    async with connected(service) as client:
        tracemalloc.start()
        with pytest.raises(Malformed, match="encoded"):
            await client.read()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 8 << 20


class Raw(httpx.AsyncByteStream):
    """A body as it is on the wire."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body


class Endless(httpx.AsyncByteStream):
    """A body that does not end by itself, and what of it was taken."""

    def __init__(self) -> None:
        self.sent = 0

    def __aiter__(self) -> "Endless":
        return self

    async def __anext__(self) -> bytes:
        self.sent += 1 << 20
        return b" " * (1 << 20)
