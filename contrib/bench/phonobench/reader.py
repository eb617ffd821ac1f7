"""The readers: a process of its own each, which prints its seconds as JSON.

``python -m phonobench.reader KIND …``; the interpreter's start is not in the figures. A process,
so that a mount that hangs can be given up by ending it.
"""

import json
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable
from statistics import median
from typing import Any
from urllib.parse import urlsplit

BLOCK = 1024 * 1024
PIECE = 64 * 1024


def sequential(path: str) -> dict[str, Any]:
    """The whole file in reads of 1 MiB, as ``dd bs=1M`` does it."""
    began = time.perf_counter()
    size, first_s = _read_all(path)
    return {"s": time.perf_counter() - began, "bytes": size, "first_s": first_s}


def known(path: str) -> dict[str, Any]:
    """As ``sequential``, of a file whose folders were looked up before."""
    os.stat(path)
    return sequential(path)


def _read_all(path: str) -> tuple[int, float]:
    began, size, first_s = time.perf_counter(), 0, 0.0
    file = os.open(path, os.O_RDONLY)
    try:
        while part := os.pread(file, BLOCK, size):
            first_s = first_s or time.perf_counter() - began
            size += len(part)
    finally:
        os.close(file)
    return size, first_s


def seeks(path: str, *door: str) -> dict[str, Any]:
    """64 KiB after ``open``, the last 64 KiB, then at five places; seconds each.

    ``door`` is a small file that is read first, so that the way to the service is warm.
    """
    for small in door:
        _read_all(small)
    size = os.stat(path).st_size
    places = random.Random(size)
    began = time.perf_counter()
    file = os.open(path, os.O_RDONLY)
    first_s = _piece(file, 0, began)
    last_s = _piece(file, size - PIECE)
    random_s = [_piece(file, places.randrange(size // PIECE) * PIECE) for _ in range(5)]
    os.close(file)
    return {"first_s": first_s, "last_s": last_s, "random_s": random_s}


def _piece(file: int, offset: int, began: float | None = None) -> float:
    began = time.perf_counter() if began is None else began
    got = len(os.pread(file, PIECE, offset))
    if got != PIECE:
        raise OSError(f"{got} bytes at {offset} instead of {PIECE}")
    return time.perf_counter() - began


def parallel(*paths: str) -> dict[str, Any]:
    """All at once, a thread each; the same path may be given several times.

    ``least_share``: when the first has finished, what the slowest had got of its equal share.
    ``worst``: how many times as long as the median the slowest took.
    """
    start = threading.Barrier(len(paths) + 1)
    progress = [0] * len(paths)
    first: list[list[int]] = []
    ends_s: list[float] = []

    def read(number: int, path: str) -> None:
        file = os.open(path, os.O_RDONLY)
        start.wait()
        while part := os.pread(file, BLOCK, progress[number]):
            progress[number] += len(part)
        first.append(list(progress))
        ends_s.append(time.perf_counter() - began)
        os.close(file)

    threads = [threading.Thread(target=read, args=each) for each in enumerate(paths)]
    for thread in threads:
        thread.start()
    began = time.perf_counter()
    start.wait()
    for thread in threads:
        thread.join()
    took_s = time.perf_counter() - began
    if len(first) != len(paths):
        raise OSError("a reader failed")
    share = sum(first[0]) / len(paths)
    return {
        "s": took_s,
        "bytes": sum(progress),
        "least_share": min(first[0]) / share,
        "worst": took_s / median(ends_s),
    }


def raw(url: str) -> dict[str, Any]:
    """A GET with a bare socket into one buffer: what the way and the server can give."""
    parts = urlsplit(url)
    began = time.perf_counter()
    with socket.create_connection((parts.hostname, parts.port)) as client:
        request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n"
        client.sendall(f"{request}Range: bytes=0-\r\n\r\n".encode())
        size, buffer = 0, bytearray(BLOCK)
        while got := client.recv_into(buffer):
            size += got
    return {"s": time.perf_counter() - began, "bytes": size}


KINDS: dict[str, Callable[..., dict[str, Any]]] = {
    "sequential": sequential,
    "known": known,
    "seeks": seeks,
    "parallel": parallel,
    "raw": raw,
}


def main() -> None:
    """``KIND PATH…``."""
    kind, *words = sys.argv[1:]
    print(json.dumps(KINDS[kind](*words)))


if __name__ == "__main__":
    main()
