"""Requests to the service with the token, repeated once after a 401.

Used by the client and by :mod:`phonofs.service.content`.
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
"""How much of an unsuccessful response is read (it may say that an object is archived)."""


class Api:
    """Sends requests with the token. Has no state of its own."""

    def __init__(self, transport: Transport, keeper: TokenProvider, api_url: str) -> None:
        self.transport = transport
        self.keeper = keeper
        self._base = api_url.rstrip("/")

    def url(self, region: str, *path: str, query: Mapping[str, str | int] | None = None) -> str:
        """Return the URL of a path in a region's storage; each segment is quoted."""
        parts = "/".join(quote(part, safe="") for part in path)
        question = f"?{urlencode(query, quote_via=quote)}" if query else ""
        return f"{self._base}/storage/{quote(region, safe='')}/v3/{parts}{question}"

    async def open(self, request: Request, *, urgent: bool | Priority = True) -> StreamingResponse:
        """Return the response, whatever its status, before its body; the caller closes it.

        After a 401 the token is renewed, and the request is sent once more.
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
        """Return the whole response, whatever its status."""
        stream = await self.open(request, urgent=urgent)
        return await stream.read_response(limit_bytes)


async def refused(stream: StreamingResponse, what: str, *, of_object: bool = True) -> ServiceError:
    """Close an unsuccessful response and return its error."""
    try:
        body = await stream.read(LARGEST_ERROR)
    except ServiceError:
        body = b""
    finally:
        await stream.aclose()
    return failure(stream.status, what, body=body, pause_s=stream.pause_s, of_object=of_object)
