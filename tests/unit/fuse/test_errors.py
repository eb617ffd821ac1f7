"""The one table from what happened to errno and log level."""

import errno
import logging

import pytest

from phonofs import errors
from phonofs.errnos import FAULT, TABLE, errno_for
from phonofs.errors import unwrap
from phonofs.fuse.outage import OutageLog

CONTRACT = {
    errors.NoSuchName: (errno.ENOENT, logging.DEBUG),
    errors.ReadOnlyTree: (errno.EROFS, logging.DEBUG),
    errors.CrawlerRefused: (errno.EACCES, logging.DEBUG),
    errors.Archived: (errno.ENODATA, logging.INFO),
    errors.JournalError: (errno.EIO, logging.DEBUG),
    errors.Refused: (errno.EACCES, logging.WARNING),
    errors.Gone: (errno.ESTALE, logging.WARNING),
    errors.Changed: (errno.ESTALE, logging.WARNING),
    errors.Unavailable: (errno.EIO, logging.WARNING),
    errors.Corrupt: (errno.EIO, logging.ERROR),
}


@pytest.mark.parametrize(("kind", "expected"), CONTRACT.items(), ids=lambda k: str(k))
def test_what_the_contract_promises(kind, expected):
    """The errnos and levels that scripts and people rely on."""
    outcome = errno_for(kind("x"))
    assert (outcome.errno, outcome.level) == expected


def leaves(kind=errors.PhonofsError):
    for child in kind.__subclasses__():
        yield child
        yield from leaves(child)


def test_every_error_of_the_services_and_the_tree_has_a_row():
    """No error of the tree's lower branches falls through to 'a fault of ours'."""
    below = [k for k in leaves() if issubclass(k, errors.ServiceError | errors.TreeError)]
    missing = [k for k in below if k not in TABLE and k.__subclasses__() == []]
    assert missing == []


def test_anything_else_is_a_fault_of_ours():
    """An exception that nobody planned for is EIO, said as an error."""
    assert errno_for(ZeroDivisionError()) == FAULT
    assert FAULT.errno == errno.EIO


def test_groups_are_unwrapped_to_their_first_leaf():
    """pyfuse3 does not look into groups."""
    inner = errors.Gone("x")
    assert unwrap(ExceptionGroup("a", [ExceptionGroup("b", [inner])])) is inner


def test_an_outage_is_said_once_and_its_end_with_the_count():
    """One line each way, however many operations fail."""
    outage = OutageLog()
    assert outage.worked() is None
    assert "cannot be reached" in (outage.failed(errors.Unavailable("cannot be reached")) or "")
    assert outage.failed(errors.Unavailable("x")) is None
    assert outage.failures == 2
    assert outage.worked() == "the service answers again; 2 operations had failed"
    assert outage.worked() is None
