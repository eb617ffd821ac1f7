"""The process may have as many files open as its user may."""

import resource

import pytest

from phonofs.process.limits import OPEN_FILES_MAX, allow_many_files

INFINITY = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((1024, 4096), (4096, 4096)),
        ((1024, 1024), (1024, 1024)),
        ((1024, 1 << 20), (OPEN_FILES_MAX, 1 << 20)),
        ((1024, INFINITY), (OPEN_FILES_MAX, INFINITY)),
        ((1 << 20, 1 << 20), (1 << 20, 1 << 20)),
        ((INFINITY, INFINITY), (INFINITY, INFINITY)),
    ],
)
def test_the_soft_limit_is_raised_up_to_what_is_ever_used(monkeypatch, before, after):
    limits = {resource.RLIMIT_NOFILE: before}
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    monkeypatch.setattr(resource, "setrlimit", limits.__setitem__)
    allow_many_files()
    assert limits == {resource.RLIMIT_NOFILE: after}


@pytest.mark.parametrize("error", [ValueError("not allowed"), OSError(1, "not permitted")])
def test_a_kernel_that_refuses_is_no_reason_not_to_start(monkeypatch, error):
    """It does if the hard limit is above fs.nr_open: kernel/sys.c, do_prlimit."""
    asked = []

    def refuse(which, limits):
        asked.append(limits)
        raise error

    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 1 << 20))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    allow_many_files()
    assert asked == [(OPEN_FILES_MAX, 1 << 20)]


def test_the_kernel_takes_it():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        allow_many_files()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert hard == before[1]
        assert soft >= before[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
