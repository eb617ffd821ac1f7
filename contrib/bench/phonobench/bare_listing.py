"""``python -m phonobench.bare_listing PORT PAGES``: a day's pages as a bare trio client has them.

It knows how many there are, requests them side by side over as many connections as phonofs uses for
a listing, decodes them, and drops them. Prints the seconds from the first connection to the last
record. ``contrib/bench/scale`` compares ``ls`` of the same day with it.
"""

import sys

import msgspec
import trio

from phonobench.account import REGION
from phonobench.things import DAY_MS, FIRST_DAY_MS

SIDE_BY_SIDE = 14
PAGE = 100
CHUNK = 65_536
HEAD = b"\r\n\r\n"
LENGTH = b"content-length:"


class Connection:
    """One connection. Owns what arrived beyond the response that was asked for."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._rest = bytearray()

    async def get(self, path: str) -> bytes:
        """The body of the response."""
        await self._stream.send_all(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        while (at := self._rest.find(HEAD)) < 0:
            await self._more()
        head = bytes(self._rest[:at]).lower()
        stop = at + len(HEAD) + int(head.partition(LENGTH)[2].split(b"\r\n")[0])
        while len(self._rest) < stop:
            await self._more()
        body = bytes(self._rest[at + len(HEAD) : stop])
        del self._rest[:stop]
        return body

    async def _more(self) -> None:
        data = await self._stream.receive_some(CHUNK)
        if not data:
            raise EOFError("the origin closed the connection")
        self._rest += data


async def listed_s(port: int, pages: int) -> float:
    """All pages of the first day, ``SIDE_BY_SIDE`` at a time; the seconds it took."""
    filter = f"createdTime=ge={FIRST_DAY_MS};createdTime=lt={FIRST_DAY_MS + DAY_MS}"
    left = iter(range(0, pages * PAGE, PAGE))
    search = f"/storage/{REGION}/v3/objects?filter={filter}&limit={PAGE}"
    decoder = msgspec.json.Decoder()

    async def work() -> None:
        connection = Connection(await trio.open_tcp_stream("127.0.0.1", port))
        for key in left:
            decoder.decode(await connection.get(f"{search}&pageKey={key}"))

    began_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(SIDE_BY_SIDE):
            nursery.start_soon(work)
    return trio.current_time() - began_s


if __name__ == "__main__":
    print(trio.run(listed_s, int(sys.argv[1]), int(sys.argv[2])))
