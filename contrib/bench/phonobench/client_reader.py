"""What reads for ``contrib/bench/client``: a process that reads whenever it is told to.

It takes a line ``KIND WHAT`` from standard input, reads, and prints the seconds, the bytes and its
own CPU seconds as JSON; then the next one. Starts and imports are not in the figures.
"""

import json
import mmap
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec

PIECE = 1 << 20
OBJECT = "bench/big"


def opened(path: str) -> dict[str, Any]:
    """The whole file by ``open().read()``."""
    fs = fsspec.filesystem("phonofs", autostart=False)
    began = time.perf_counter()
    with fs.open(path) as file:
        data = file.read()
    return {"s": time.perf_counter() - began, "bytes": len(data)}


def cat(path: str) -> dict[str, Any]:
    """The whole file by ``cat``."""
    fs = fsspec.filesystem("phonofs", autostart=False)
    began = time.perf_counter()
    data = fs.cat(path)
    return {"s": time.perf_counter() - began, "bytes": len(data)}


def file(path: str) -> dict[str, Any]:
    """The whole file from a mount."""
    began = time.perf_counter()
    data = Path(path).read_bytes()
    return {"s": time.perf_counter() - began, "bytes": len(data)}


def day(path: str) -> dict[str, Any]:
    """All files of a folder: it is listed, then they are fetched by one call."""
    fs = fsspec.filesystem("phonofs", autostart=False)
    began = time.perf_counter()
    found = fs.cat(fs.ls(path, detail=False))
    return {"s": time.perf_counter() - began, "bytes": sum(map(len, found.values()))}


def names(path: str) -> dict[str, Any]:
    """The paths of a folder's files."""
    return {"names": fsspec.filesystem("phonofs", autostart=False).ls(path, detail=False)}


def find(path: str) -> dict[str, Any]:
    """All paths below a folder."""
    fs = fsspec.filesystem("phonofs", autostart=False)
    began = time.perf_counter()
    count = len(fs.find(path))
    return {"s": time.perf_counter() - began, "count": count}


def stored(words: str) -> dict[str, Any]:
    """Put a file into an S3 server: ``URL PATH``."""
    url, _, path = words.partition(" ")
    fs = _s3(url)
    fs.mkdir("bench")
    fs.put(path, OBJECT)
    return {"bytes": fs.size(OBJECT)}


def s3(url: str) -> dict[str, Any]:
    """The same file from there by s3fs, by ``open().read()``."""
    fs = _s3(url)
    began = time.perf_counter()
    with fs.open(OBJECT) as file:
        data = file.read()
    return {"s": time.perf_counter() - began, "bytes": len(data)}


def _s3(url: str) -> Any:
    return fsspec.filesystem("s3", key="bench", secret="bench", endpoint_url=url)


def bare(size: str) -> dict[str, Any]:
    """A copy of so many bytes from the memory of another process, by pieces, into one buffer."""
    return _copied(int(size), PIECE)


def kept(size: str) -> dict[str, Any]:
    """The same, into memory that holds all of it at the end, as a reader of a file gets it."""
    return _copied(int(size), int(size))


def _copied(size: int, held: int) -> dict[str, Any]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    if not os.fork():
        ours.close()
        content = b"x" * size
        theirs.sendall(content[:1])
        theirs.sendall(content)
        os._exit(0)
    theirs.close()
    ours.recv(1)  # the content is there
    began, done = time.perf_counter(), 0
    with memoryview(mmap.mmap(-1, held, flags=mmap.MAP_PRIVATE)) as buffer:
        while done < size:
            start = done % held
            done += ours.recv_into(buffer[start : start + PIECE])
    took_s = time.perf_counter() - began
    os.wait()
    return {"s": took_s, "bytes": done}


KINDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "open": opened,
    "cat": cat,
    "file": file,
    "day": day,
    "names": names,
    "find": find,
    "stored": stored,
    "s3": s3,
    "bare": bare,
    "kept": kept,
}


def main() -> None:
    """Read as each line of the standard input says."""
    for line in sys.stdin:
        kind, _, what = line.rstrip("\n").partition(" ")
        before_s = time.process_time()
        found = KINDS[kind](what)
        print(json.dumps(found | {"cpu_s": time.process_time() - before_s}), flush=True)


if __name__ == "__main__":
    main()
