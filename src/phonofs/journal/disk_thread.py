"""Runs in a thread what waits for the disk of a journal. Used by ``journal.py``."""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

import trio

_Result = TypeVar("_Result")


async def in_thread(call: Callable[[], _Result], patience_s: float) -> _Result:
    """Run a call in a thread; return its result, or raise its error.

    If cancelled meanwhile, wait for so long at most: a disk that does not answer must not keep the
    process from ending. Then raise trio.Cancelled; the thread goes on alone.
    """
    token, ended = trio.lowlevel.current_trio_token(), trio.Event()
    outcome = Future[_Result]()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 - the task raises it
            outcome.set_exception(error)

    def tell(_: object) -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(ended.set)

    trio.lowlevel.start_thread_soon(work, tell, name="journal")
    try:
        await ended.wait()
    except trio.Cancelled:
        with trio.move_on_after(patience_s, shield=True):
            await ended.wait()
        if not outcome.done():
            raise
    return outcome.result()
