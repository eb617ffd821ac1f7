"""``phonofs fetch``: brings files or whole days into the cache by reading them."""

import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import click

from phonofs.attributes import CACHED_ATTRIBUTE
from phonofs.cli.progress_bar import ProgressBar
from phonofs.cli.report import EXIT_INTERRUPTED
from phonofs.cli.selection import Chosen, chosen, one_mount
from phonofs.control.client import status_of
from phonofs.errors import CredentialsRefused, PhonofsError, Unavailable, UsageError
from phonofs.units import format_count, format_size, printable

PIECE = 1 << 20
"""Bytes per read: the most that the kernel reads ahead, so larger reads gain nothing."""


@dataclass
class Outcome:
    """The results of the files. Owned by the thread that prints."""

    done: int = 0
    failed: list[tuple[Path, OSError]] = field(default_factory=list)
    full: bool = False


@click.command("fetch")
@click.argument("paths", nargs=-1, required=True, metavar="PATH…")
@click.option("-n", "--dry-run", is_flag=True, help="Only print how much would be downloaded.")
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1, 64),
    default=8,
    metavar="N",
    help="Files to download at the same time (8).",
)
def command(paths: Sequence[str], dry_run: bool, jobs: int) -> int:
    """Download files or whole days into the cache.

    PATH is a file, a folder or a glob within one mount. What the cache already has is not read
    again, so after Ctrl-C the next run continues. Archived files are skipped; if all are archived,
    the exit status is 1.
    """
    point = one_mount(paths)
    files = list(chosen(paths))
    archived = [file for file in files if file.archived]
    wanted = [file for file in files if not file.archived and (file.missing or file.unsized)]
    missing = sum(file.missing for file in wanted)
    click.echo(_plan(files, archived, wanted, missing))
    if dry_run:
        return 0
    if archived and len(archived) == len(files):
        raise UsageError("nothing was fetched: an archived file must be restored first")
    if not wanted:
        return 0
    _check_free_space(point, missing)
    try:
        outcome = _fetch_all(wanted, missing, jobs)
    except KeyboardInterrupt:
        click.echo("\nstopped; the next run continues from here", err=True)
        # Do not return: Python would wait for threads that wait for the service.
        os._exit(EXIT_INTERRUPTED)
    return _report(outcome, len(wanted))


def _plan(
    files: Sequence[Chosen], archived: Sequence[Chosen], wanted: Sequence[Chosen], missing: int
) -> str:
    parts = [format_count(len(files), "file"), f"{len(wanted)} to fetch ({format_size(missing)})"]
    if archived:
        parts.append(f"{len(archived)} archived (see `phonofs restore`)")
    return ", ".join(parts)


def _check_free_space(point: str, missing: int) -> None:
    """Raise UsageError if the cache is too small: new content would evict what was just fetched."""
    cache = status_of(point).get("cache")
    cap = cache.get("cap_bytes") if isinstance(cache, dict) else None
    if isinstance(cap, int) and missing > cap:
        raise UsageError(
            f"{format_size(missing)} do not fit into the cache of {format_size(cap)}: "
            "increase cache_size, or fetch less"
        )


def _fetch_all(files: Sequence[Chosen], missing: int, jobs: int) -> Outcome:
    stop = threading.Event()
    outcome = Outcome()
    pool = ThreadPoolExecutor(jobs, "fetch")
    with ProgressBar() as bar:
        bar.begin(len(files), missing)
        queue = iter(files)
        running: dict[Future[None], Chosen] = {}
        try:
            while _top_up(running, queue, pool, jobs, bar.advance, stop):
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    _note(outcome, running.pop(future), future)
                    bar.done(1)
                if outcome.full:
                    break
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
    return outcome


def _top_up(
    running: dict[Future[None], Chosen],
    queue: Iterator[Chosen],
    pool: ThreadPoolExecutor,
    jobs: int,
    advance: Callable[[int], None],
    stop: threading.Event,
) -> bool:
    """Start reading until ``jobs`` files are being read; return whether any is."""
    while len(running) < jobs:
        file = next(queue, None)
        if file is None:
            break
        running[pool.submit(_read_whole, file, advance, stop)] = file
    return bool(running)


def _read_whole(file: Chosen, advance: Callable[[int], None], stop: threading.Event) -> None:
    """Read the file and discard the bytes; the mount caches them. Raises OSError."""
    descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        offset = 0
        while not stop.is_set():
            size = len(os.pread(descriptor, PIECE, offset))
            if not size:
                return
            offset += size
            # Bytes that were already cached are read too, but do not count as progress.
            advance(min(size, max(offset - file.cached, 0)))
    finally:
        os.close(descriptor)


def _note(outcome: Outcome, file: Chosen, future: Future[None]) -> None:
    error = future.exception()
    if isinstance(error, OSError):
        outcome.failed.append((file.path, error))
    elif error is not None:
        raise error
    else:
        outcome.done += 1
        outcome.full = outcome.full or not _kept(file)


def _kept(file: Chosen) -> bool:
    """Return whether the cache has the file now; it does not if it has no room left."""
    try:
        cached = int(os.getxattr(file.path, CACHED_ATTRIBUTE))
        return cached >= os.stat(file.path).st_size
    except OSError:
        return True  # the file has disappeared, which does not mean that the cache is full


def _report(outcome: Outcome, wanted: int) -> int:
    for path, error in outcome.failed:
        click.echo(f"{printable(str(path))}: {error.strerror}", err=True)
    click.echo(f"{outcome.done} of {wanted} fetched" + _failures(outcome.failed))
    if outcome.full:
        raise UsageError("stopped: the cache has no room left (see cache_size and cache_min_free)")
    return _status(outcome.failed)


def _failures(failed: Sequence[tuple[Path, OSError]]) -> str:
    return f", {len(failed)} failed" if failed else ""


def _status(failed: Sequence[tuple[Path, OSError]]) -> int:
    """Return the exit status of the most severe failure."""
    kinds = {error.errno for _, error in failed}
    if errno.EIO in kinds:
        return Unavailable.exit_status
    if errno.EACCES in kinds:
        return CredentialsRefused.exit_status
    return PhonofsError.exit_status if kinds else 0
