"""Requests to the service's own origin, with the token: one more try after a 401, not more.

Used by the client and by the ways of content.
"""

from collections.abc import Mapping
from urllib.parse import quote, urlencode

from phonofs.errors import ServiceError
from phonofs.priority import Priority
from phonofs.service.auth import TokenProvider
from phonofs.service.errors_map import failure
from phonofs.service.messages import Request, Response
from phonofs.service.session import Transport
from phonofs.service.streaming_response import StreamingResponse

LARGEST_ERROR = 1 << 14
"""How much of an unsuccessful answer is looked at (does it speak of cold storage?)."""


class Api:
    """Sends what needs the token. Holds no state of its own."""

    def __init__(self, transport: Transport, keeper: TokenProvider, api_url: str) -> None:
        self.transport = transport
        self.keeper = keeper
        self._base = api_url.rstrip("/")

    def url(self, region: str, *path: str, query: Mapping[str, str | int] | None = None) -> str:
        """The URL of a path in a region's storage; its parts are quoted."""
        parts = "/".join(quote(part, safe="") for part in path)
        question = f"?{urlencode(query, quote_via=quote)}" if query else ""
        return f"{self._base}/storage/{quote(region, safe='')}/v3/{parts}{question}"

    async def open(self, request: Request, *, urgent: bool | Priority = True) -> StreamingResponse:
        """The answer with its body still to come, whatever its status; the caller closes it.

        A 401 wakes the keeper, and the request goes once more with the fresh token.
        """
        stream = await self.transport.open(request, urgent=urgent, bearer=self.keeper)
        if stream.status != 401 or stream.token is None:
            return stream
        await stream.aclose()
        self.keeper.reject(stream.token)
        return await self.transport.open(request, urgent=urgent, bearer=self.keeper)

    async def request(
        self, request: Request, *, limit_bytes: int, urgent: bool | Priority = True
    ) -> Response:
        """The whole answer, whatever its status."""
        stream = await self.open(request, urgent=urgent)
        return await stream.read_response(limit_bytes)


async def refused(stream: StreamingResponse, what: str, *, of_object: bool = True) -> ServiceError:
    """Close an unsuccessful answer and say what it means."""
    try:
        body = await stream.read(LARGEST_ERROR)
    except ServiceError:
        body = b""
    finally:
        await stream.aclose()
    return failure(stream.status, what, body=body, pause_s=stream.pause_s, of_object=of_object)
