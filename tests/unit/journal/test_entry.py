"""Lines that are to be written together: who waits for them, and for how long."""

import trio

from phonofs.errors import JournalError
from phonofs.journal.entry import Entry, granted
from tests.unit.journal.test_verification import opened

PATIENCE_S = 10.0


async def test_an_outcome_that_comes_as_the_patience_ends_is_taken():
    """Or else a line that was written would tell of an open that was refused, without an end."""
    seen = set()
    for _ in range(50):
        entry = Entry([opened(1)])

        async def write(entry: Entry = entry) -> None:
            await trio.sleep(PATIENCE_S)
            entry.settle(7, None)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            came = await entry.wait(PATIENCE_S)
            assert came == (entry.number == 7)
            seen.add(came)
    assert seen == {True, False}, "the two tasks run in any order"


def test_an_open_that_was_given_up_is_no_open():
    """If it is not written, no gap counts it."""
    entries = [Entry([opened(1)]), Entry([opened(2)])]
    entries[0].give_up()
    for entry in entries:
        entry.settle(0, JournalError("the disk is full"))
    assert granted(entries) == 1
