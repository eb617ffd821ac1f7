"""``contrib/bench/wire``: one GET by way of our transports, beside curl and bare sockets.

Loopback, nginx serving a file from the page cache, plain and over TLS (a certificate of its own).
Everybody drops the bytes. In turns; MB/s and the ratio to curl with its spread.
"""

import argparse
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack, aclosing
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import trio

from phonobench.processes import Failed, run
from phonobench.ratios import Spread, ratios
from phonobench.servers import NGINX, nginx, origin
from phonobench.things import MIB, make, write
from phonofs.service.session import Transport, new_request
from phonofs.service.streaming_response import stream_of

BLOCK = 256 * 1024
CURL = "curl"
Way = Callable[[str, ssl.SSLContext], int]
"""A GET of a URL: the bytes that came."""


def curl(url: str, _context: ssl.SSLContext) -> int:
    """The yardstick; its start of about 10 ms counts."""
    command = ["curl", "-sk", "-o", "/dev/null", "-w", "%{size_download}", url]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def blocking(url: str, context: ssl.SSLContext) -> int:
    """A bare blocking socket into one buffer."""
    parts = urlsplit(url)
    with ExitStack() as stack:
        client = stack.enter_context(socket.create_connection((parts.hostname, parts.port)))
        if parts.scheme == "https":
            client = stack.enter_context(context.wrap_socket(client, server_hostname="127.0.0.1"))
        client.sendall(_head(url))
        size, buffer = 0, bytearray(BLOCK)
        while got := client.recv_into(buffer):
            size += got
    return size


def _head(url: str) -> bytes:
    parts = urlsplit(url)
    return (
        f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode()
    )


def trio_socket(url: str, context: ssl.SSLContext) -> int:
    """A stream of trio's; over TLS its own."""
    return trio.run(_trio_socket, url, context)


async def _trio_socket(url: str, context: ssl.SSLContext) -> int:
    parts = urlsplit(url)
    stream: trio.abc.Stream = await trio.open_tcp_stream(parts.hostname or "", parts.port or 0)
    if parts.scheme == "https":
        stream = trio.SSLStream(stream, context, server_hostname="127.0.0.1", https_compatible=True)
    await stream.send_all(_head(url))
    size = 0
    while got := await stream.receive_some(BLOCK):
        size += len(got)
    return size


def plain_httpx(url: str, context: ssl.SSLContext) -> int:
    """httpx as it comes, ``aiter_raw``."""
    return trio.run(_plain_httpx, url, context)


async def _plain_httpx(url: str, context: ssl.SSLContext) -> int:
    async with (
        httpx.AsyncClient(verify=context, trust_env=False) as client,
        client.stream("GET", url) as answer,
    ):
        return sum([len(chunk) async for chunk in answer.aiter_raw()])


def ours(url: str, context: ssl.SSLContext) -> int:
    """phonofs's transport with the bodies read from the socket."""
    return trio.run(_ours, url, context, None)


def ordinary(url: str, context: ssl.SSLContext) -> int:
    """phonofs's session on httpx's own transport, as behind a proxy."""
    return trio.run(_ours, url, context, httpx.AsyncHTTPTransport(verify=context))


async def _ours(url: str, context: ssl.SSLContext, http: httpx.AsyncBaseTransport | None) -> int:
    parts = urlsplit(url)
    api = f"{parts.scheme}://{parts.netloc}"
    size = 0
    async with (
        Transport(api, http=http, context=context, proxies={}) as transport,
        aclosing(await transport.open(new_request("content", url))) as response,
    ):
        async for chunk in stream_of(response):
            size += len(chunk)
    return size


CLIENTS: dict[str, Way] = {
    CURL: curl,
    "blocking socket": blocking,
    "trio stream": trio_socket,
    "httpx": plain_httpx,
    "phonofs": ours,
    "phonofs, ordinary": ordinary,
}


def main() -> int:
    """0 done; 1 it could not be measured; 130 stopped."""
    parser = argparse.ArgumentParser(prog="contrib/bench/wire", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=512, help="MiB")
    given = parser.parse_args()
    try:
        _measure(given.rounds, given.size * MIB)
    except Failed as error:
        print(f"wire: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _measure(rounds: int, size: int) -> None:
    if NGINX is None:
        raise Failed("nginx is missing; `apt install nginx-light` brings it")
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="phonobench-")))
        root = work / "origin"
        (thing,) = write(root, [make(1, 0, 0, 1, size)])
        behind = stack.enter_context(origin(root, [thing], work))
        pair = _certificate(work)
        context = ssl.create_default_context(cafile=str(pair[0]))
        for tls in (None, pair):
            url = stack.enter_context(nginx(root, behind, work, tls))
            print(f"{'TLS' if tls else 'plain'}, {size // MIB} MiB, {rounds} rounds")
            _compare(f"{url}/files/{thing.path}", context, rounds, size)


def _compare(url: str, context: ssl.SSLContext, rounds: int, size: int) -> None:
    figures: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, way in CLIENTS.items():
            figures[name].append(_speed(way, url, context, size))
    for name, speeds in figures.items():
        times = Spread.of(ratios(speeds, figures[CURL], faster_is_more=True))
        speed = Spread.of(speeds)
        print(f"  {name:18} {speed.median:6.0f} MB/s ({speed.least:.0f}–{speed.most:.0f})"
              f"   {times.median:.2f} × curl ({times.least:.2f}–{times.most:.2f})")  # fmt: skip


def _speed(way: Way, url: str, context: ssl.SSLContext, size: int) -> float:
    began = time.perf_counter()
    got = way(url, context)
    took_s = time.perf_counter() - began
    if got < size:
        raise Failed(f"{way.__name__} got {got} of {size} bytes")
    return size / took_s / 1e6


def _certificate(work: Path) -> tuple[Path, Path]:
    """One for 127.0.0.1 that its own signature vouches for."""
    certificate, key = work / "cert.pem", work / "key.pem"
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)])  # fmt: skip
    return certificate, key


if __name__ == "__main__":
    sys.exit(main())
