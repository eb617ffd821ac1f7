"""What all tests share: trio with a fake clock, a quiet log, the long run, the need for FUSE.

An ``async def test_…`` runs under trio with a clock that jumps to the next deadline when nobody
is busy, so that a minute of retries takes no time; ``@trio_test`` says the same explicitly. With
the marker ``real_clock`` it runs in real time (sockets and threads need that), without the time
during which the machine runs other programs.
"""

import functools
import inspect
import logging
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import hypothesis
import pytest
import trio
import trio.testing

from tests.support.log_check import LogCheck
from tests.support.timing import FairClock

SLOW_TEST_LIMIT_S = 3600
"""Limit of one test of the long run; pyproject.toml has that of all others."""

logging.getLogger("phonofs").setLevel(logging.DEBUG)

hypothesis.settings.register_profile(
    "any machine",
    parent=hypothesis.settings(),
    deadline=None,  # how long an example takes says more of the machine
)
hypothesis.settings.load_profile("any machine")


def trio_test(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test under trio with a clock that jumps to the next deadline."""

    @functools.wraps(function)
    def run(**fixtures: Any) -> None:
        _run(function, fixtures, real_clock=False)

    return run


def _run(
    function: Callable[..., Awaitable[None]], fixtures: dict[str, Any], *, real_clock: bool
) -> None:
    clock = FairClock(1) if real_clock else trio.testing.MockClock(autojump_threshold=0)
    trio.run(functools.partial(function, **fixtures), clock=clock, strict_exception_groups=True)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run ``async def`` tests ourselves."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    fixtures = {name: pyfuncitem.funcargs[name] for name in names}
    real_clock = pyfuncitem.get_closest_marker("real_clock") is not None
    _run(pyfuncitem.obj, fixtures, real_clock=real_clock)
    return True


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--long`` runs what is marked ``slow`` too."""
    parser.addoption("--long", action="store_true", help="also run what takes minutes")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers this file gives a meaning to."""
    config.addinivalue_line("markers", "real_clock: an async test that runs in real time")
    config.addinivalue_line(
        "markers", "expected_log(*words): warnings that hold one of the words are expected"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what cannot or shall not run here, each with the exact reason."""
    long_run = config.getoption("--long")
    reason = why_no_fuse()
    for item in items:
        if item.get_closest_marker("slow") and not long_run:
            item.add_marker(pytest.mark.skip(reason="part of the long run only (--long)"))
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TEST_LIMIT_S))
        if item.get_closest_marker("fuse") and reason:
            item.add_marker(pytest.mark.skip(reason=reason))


def why_no_fuse() -> str:
    """Why nothing can be mounted here; empty where it can."""
    if sys.platform != "linux":
        return "FUSE mounts are tested on Linux only"
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse (in a container: --device /dev/fuse --cap-add SYS_ADMIN)"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse may not be opened by this user"
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        return "fusermount3 is missing (package fuse3)"
    return ""


@pytest.fixture
def expected_log() -> LogCheck:
    """Says which warnings are expected: ``expected_log.expect("checksum")``; ``.seen`` has all."""
    return LogCheck()


@pytest.fixture(autouse=True)
def quiet_log(request: pytest.FixtureRequest, expected_log: LogCheck) -> Iterator[None]:
    """Fails a test during which phonofs logged a warning or worse that nobody expected."""
    for marker in request.node.iter_markers("expected_log"):
        expected_log.expect(*(marker.args or ("",)))
    logger = logging.getLogger("phonofs")
    logger.addHandler(expected_log)
    yield
    logger.removeHandler(expected_log)
    assert not expected_log.unexpected(), "unexpected in the log"
