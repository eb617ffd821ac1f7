"""How content comes: the ways, ranges, links, what answers promise."""

import pytest

from tests.unit.css_service import API, Service, connected, ramp

WAYS = ("range", "presign", "redirect", "stream")


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_gives_the_right_bytes_and_is_found_out(way: str) -> None:
    """Whatever the way, a part is the part, and the way is known afterwards."""
    service = Service(way)
    async with connected(service) as it:
        assert it.client.content_way("uk") == ""
        assert it.client.seekable("uk") is None
        assert await it.read(100, 200) == (
            ramp(1000)[100:] if way == "stream" else ramp(1000)[100:200]
        )
        assert it.client.content_way("uk") == way
        assert it.client.seekable("uk") is (way != "stream")
        assert await it.read(0, None) == ramp(1000)


@pytest.mark.parametrize("way", ["presign", "redirect"])
async def test_the_token_goes_to_no_other_origin(way: str) -> None:
    """A presigned URL and a redirect are asked for without the token."""
    service = Service(way)
    async with connected(service) as it:
        await it.read(0, 10)
        await it.read(10, 20)
    for request in service.requests:
        assert ("authorization" in request.headers) == str(request.url).startswith(API)
