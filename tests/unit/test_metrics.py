"""Prometheus metrics: names, values, and the server."""

import socket
import urllib.request

import pytest
import trio

from phonofs.errors import UsageError
from phonofs.metrics import Metrics

STATUS = {
    "uptime_s": 5.0,
    "catalogue": {"objects": 3, "bytes": 300},
    "service": {
        "requests": {"token": 1, "search": 4},
        "received_bytes": 70,
        "rate": {"max_per_s": None, "limit_per_s": 0.5, "waiting": 2, "throttled": 3},
    },
    "fuse": {"open_files": 2, "waiting": 0, "errnos": {"EIO": 1}},
}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.mark.real_clock
async def test_a_scrape_shows_the_status():
    """Base units, counters with _total, labels for kinds; no name of a person, no URL."""
    port = free_port()
    async with trio.open_nursery() as nursery:
        await nursery.start(Metrics(f"127.0.0.1:{port}", lambda: STATUS).run)

        def scrape() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                return answer.read().decode()

        text = await trio.to_thread.run_sync(scrape)
        nursery.cancel_scope.cancel()
    assert "phonofs_catalogue_objects 3.0" in text
    assert "phonofs_received_bytes_total 70.0" in text
    assert "phonofs_request_limit_per_second 0.5" in text
    assert "phonofs_requests_waiting_for_rate 2.0" in text
    assert "phonofs_throttled_responses_total 3.0" in text
    assert 'phonofs_requests_total{kind="search"} 4.0' in text
    assert 'phonofs_operation_errors_total{errno="EIO"} 1.0' in text
    assert "http" not in text


@pytest.mark.real_clock
async def test_an_address_in_use_is_said():
    """A port that is taken is one sentence."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(UsageError, match=f"127.0.0.1:{port}"):
            await Metrics(f"127.0.0.1:{port}", dict).run()
