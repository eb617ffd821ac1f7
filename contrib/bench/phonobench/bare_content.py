"""A bare trio client: fetches objects into memory and hashes them, through one process.

``python -m phonobench.bare_content URL…`` prints its seconds as JSON. That is what Python can do:
one event loop that only receives, and threads that only compute MD5s. It stores nothing, serves
nobody and compares nothing.
"""

import hashlib
import json
import socket
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import trio

PIECE = 1 << 20
AHEAD = 4
"""Pieces received, but not hashed yet."""


def fetch(*urls: str) -> dict[str, Any]:
    """All objects at once, a connection each."""
    began = time.perf_counter()
    sizes = trio.run(_fetch_all, urls)
    return {"s": time.perf_counter() - began, "bytes": sum(sizes)}


async def _fetch_all(urls: tuple[str, ...]) -> list[int]:
    sizes: list[int] = []
    async with trio.open_nursery() as nursery:
        for url in urls:
            nursery.start_soon(_fetch, url, sizes)
    return sizes


async def _fetch(url: str, sizes: list[int]) -> None:
    parts = urlsplit(url)
    with trio.socket.socket() as client:
        await client.connect((parts.hostname or "", parts.port or 80))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n"
        await client.send(f"{request}Range: bytes=0-\r\n\r\n".encode())
        send, receive = trio.open_memory_channel[memoryview](AHEAD)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_hash, receive)
            sizes.append(await _receive(client, send))


async def _receive(client: trio.socket.SocketType, send: trio.MemorySendChannel[memoryview]) -> int:
    """Pass on the body as it comes; return its length."""
    size = 0
    async with send:
        head, _, body = (await client.recv(PIECE)).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 206"):
            raise OSError(head[:40].decode("latin-1"))
        while body:
            size += len(body)
            await send.send(memoryview(body))
            body = await client.recv(PIECE)
    return size


async def _hash(receive: trio.MemoryReceiveChannel[memoryview]) -> None:
    md5 = hashlib.md5(usedforsecurity=False)
    async with receive:
        async for piece in receive:
            await trio.to_thread.run_sync(md5.update, piece)


if __name__ == "__main__":
    print(json.dumps(fetch(*sys.argv[1:])))
