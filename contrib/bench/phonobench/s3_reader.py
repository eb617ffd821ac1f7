"""What reads for ``contrib/bench/s3``: a process, which prints its seconds as JSON.

``python -m phonobench.s3_reader KIND URL THREADS``; what to read comes on standard input, a JSON
list. Start and import are not in the figures. Threads wait for bytes without the GIL, and obstore
signs and receives in Rust, so that the server is what is measured.
"""

import http.client
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import obstore
from obstore.store import S3Store

from phonobench.s3_servers import store_of

RANGES = 16
PIECE = 1 << 20


def ranges(store: S3Store, threads: ThreadPoolExecutor, words: list[Any]) -> int:
    """One object in 16 ranges: ``[KEY, SIZE]``; the bytes are dropped.

    By a presigned URL and bare sockets: rclone answers a range with 200, which obstore refuses.
    """
    key, size = words
    url = urlsplit(obstore.sign(store, "GET", key, timedelta(hours=1)))
    step = size // RANGES

    def get(start: int) -> int:
        connection = http.client.HTTPConnection(url.netloc, timeout=120)
        stop = min(start + step, size)
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        connection.request("GET", f"{url.path}?{url.query}", headers=headers)
        answer, done, buffer = connection.getresponse(), 0, bytearray(PIECE)
        if answer.getheader("Content-Range") != f"bytes {start}-{stop - 1}/{size}":
            raise ValueError(f"{answer.status} {answer.read(500)!r}")
        while got := answer.readinto(buffer):
            done += got
        connection.close()
        return done

    return sum(threads.map(get, range(0, size, step)))


def whole(store: S3Store, threads: ThreadPoolExecutor, words: list[Any]) -> int:
    """Whole objects: their keys."""
    return sum(threads.map(lambda key: len(obstore.get(store, key).bytes()), words))


def listed(store: S3Store, _threads: ThreadPoolExecutor, words: list[Any]) -> int:
    """The keys below a prefix, some times: ``[PREFIX, TIMES]``; how many keys came."""
    prefix, times = words
    return sum(len(page) for _ in range(times) for page in obstore.list(store, prefix))


KINDS: dict[str, Callable[[S3Store, ThreadPoolExecutor, list[Any]], int]] = {
    "ranges": ranges,
    "whole": whole,
    "listed": listed,
}


def main() -> None:
    """``KIND URL THREADS``."""
    kind, url, number = sys.argv[1:]
    words = json.load(sys.stdin)
    store = store_of(url)
    with ThreadPoolExecutor(int(number)) as threads:
        list(threads.map(lambda _: obstore.list_with_delimiter(store), range(int(number))))
        began = time.perf_counter()
        size = KINDS[kind](store, threads, words)
        print(json.dumps({"s": time.perf_counter() - began, "bytes": size}))


if __name__ == "__main__":
    main()
