"""The content of one object while it is open: its downloads, its handles, its read-ahead.

All handles of the same content share one open object, so that each byte is downloaded once.
Planning is synchronous; only waiting is not.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import trio

from phonofs.cache.entry import CacheEntry
from phonofs.errors import (
    Changed,
    Corrupt,
    Malformed,
    ServiceError,
    Unavailable,
    forget_frames,
)
from phonofs.model import Record
from phonofs.priority import Priority
from phonofs.ranges import Ranges
from phonofs.reader.context import ReaderContext, content_key
from phonofs.reader.download import Chunk, Download, Step
from phonofs.reader.length import Length, is_empty
from phonofs.reader.limits import (
    CHECKED_FIRST,
    FIRST_OF_EACH,
    INITIAL_READAHEAD,
    KIB,
    LEAST_PART,
    LONG_PATIENCE_S,
    MOST_CHANGES,
    MOST_PARALLEL,
    MOST_PART,
    MOST_STARTING,
    PATIENCE_S,
    QUIET_S,
    RUN_OUT,
    SLACK,
    SMALL,
    WORTH_CUTTING,
)
from phonofs.reader.readahead import (
    ThroughputEstimator,
    Window,
    download_size,
    missing_ranges,
    reach,
    run_on,
    split,
)
from phonofs.reader.slow_start import starting_pieces
from phonofs.reader.verification import ContentVerification, provable
from phonofs.service.content import Body

log = logging.getLogger(__name__)


class Handle:
    """One open of one file; made by ``Reader.open``, ended by ``Reader.release``.

    window   how it reads
    starved  read-ahead wanted more downloads than it may have at a time
    wrong    why it gets no more bytes: some that it was given turned out to be wrong
    finished whether it was read from its first byte to its last
    pid      the process that opened it, 0 if that is not known
    given_bytes  how many bytes it was given; those that it was given twice count twice
    """

    __slots__ = (
        "_doubted", "_plan_at", "_unverified", "content", "finished", "given_bytes", "ino", "pid",
        "starved", "window", "wrong",
    )  # fmt: skip

    def __init__(self, content: "OpenObject", ino: int, pid: int = 0) -> None:
        self.content = content
        self.ino = ino
        self.pid = pid
        self.window = Window()
        self.starved = False
        self.finished = False
        self.given_bytes = 0
        self.wrong: Corrupt | None = None
        self._plan_at = 0
        self._unverified = Ranges()
        self._doubted = Ranges()

    # reading ahead

    def note_read(self, start: int, stop: int) -> None:
        """Record a read of ``[start, stop)``; after a seek, read-ahead is planned anew."""
        if self.window.note(start, stop):
            self._plan_at = 0

    @property
    def plan_due(self) -> bool:
        """Whether it has read so far that read-ahead is to be planned again."""
        return self.window.next >= self._plan_at

    def planned(self, plan_at: int) -> None:
        """Read-ahead was planned; the next time is when ``window.next`` has come to ``plan_at``."""
        self._plan_at = plan_at
        self.starved = False

    def starve(self) -> None:
        """Read-ahead wanted more downloads than it may have at a time."""
        self.starved = True

    def rest(self) -> None:
        """Memory is short: nothing is read ahead until the handle reads again."""
        self.starved = False

    def finish(self, stop: int) -> bool:
        """Whether a read up to ``stop`` completes the file, which was read from its first byte.

        True once only.
        """
        size = self.content.size
        if self.finished or stop < size or self.window.sequential_bytes < size:
            return False
        self.finished = True
        return True

    # verification

    def note_given(self, count: int) -> None:
        """Count bytes that the handle is given."""
        self.given_bytes += count

    def give(self, start: int, stop: int) -> None:
        """Note that the handle is given ``[start, stop)`` before these bytes are verified."""
        self._unverified.add(start, stop)

    def doubt(self) -> None:
        """The content failed its check: remember what the handle was given of it."""
        self._doubted, self._unverified = self._unverified, Ranges()

    def judge(self, false: list[tuple[int, int]]) -> None:
        """The content, fetched again, is right; the intervals ``false`` of the first were not.

        Sets ``wrong`` if the handle was given any of those bytes.
        """
        if any(self._doubted.missing(a, b) != [(a, b)] for a, b in false):
            self.wrong = Corrupt(
                f"object {self.content.record.id}: bytes given before were wrong; "
                "open the file again"
            )
        self._doubted = Ranges()

    # length

    @property
    def doubtful(self) -> bool:
        """Whether the length is unknown, or is contradicted by a response and not proved yet."""
        return self.content.length.unknown or self.content.length.doubtful

    @property
    def told(self) -> int:
        """The length that the file system was told last: the record's, or a proved one."""
        return self.content.told

    @property
    def size(self) -> int:
        """The length of the file in bytes, as far as it is known now."""
        return self.content.size


class OpenObject:
    """One content while it is open: its bytes, its downloads, and its handles.

    downloads what is being downloaded. Invariant: downloads that are not ``whole`` neither overlap
              each other nor what is present, so no byte is downloaded twice
    handles   the open files
    failure   why no read can succeed any more
    trouble   why the last request failed
    entry     its cache entry: the bytes, and which of them are present
    etag      the version all bytes are of; '' until the service named one
    answered  whether any request for its bytes was answered since it was opened
    size      the length as far as it is known; ``length`` knows whether it is proved
    told      the length the file system knows: a proved one, or that of the record
    loose     downloads whose body does not say where it ends
    """

    def __init__(
        self,
        record: Record,
        ino: int,
        entry: CacheEntry,
        context: ReaderContext,
        on_idle: "Callable[[OpenObject], None]",
    ) -> None:
        self._on_idle = on_idle
        self.record = record
        self.ino = ino
        self.entry = entry
        self.context = context
        if not entry.verified:
            entry.resize(record.size)  # the cache has a length that was never proved
        self.size = self.told = entry.size
        self.etag = ""
        self.downloads: list[Download] = []
        self.handles: set[Handle] = set()
        self._holds = 0
        self._needs: dict[object, tuple[int, int]] = {}
        self.failure: ServiceError | None = None
        self.trouble: ServiceError | None = None
        self._quiet_until = float("-inf")
        self.verification = ContentVerification(record, entry, context, self)
        self.length = Length(record, entry, context, self)
        self.loose: set[Download] = set()
        self._renewed = False
        if (
            context.stale.get(content_key(record), 0) >= MOST_CHANGES
            and provable(record)
            and not entry.verified
        ):
            self._trust_no_etag()
        self.answered = False
        self._ranges_seen = False
        self._whole_seen = False

    # users

    @property
    def is_as_new(self) -> bool:
        """Whether it is as a new one would be: all of its bytes are there, checked, and none of
        them was asked for. So if any is lost, nothing of former answers counts.
        """
        asked = self.answered or self.trouble is not None or self.failure is not None
        return not asked and self.entry.verified and self.entry.complete

    def reopen(self, record: Record, ino: int) -> bool:
        """Use it again after it was dropped, if it is as a new one for this file would be."""
        if record is not self.record or ino != self.ino or not self.is_as_new:
            return False
        self.verification.reopen()
        return True

    def open(self, ino: int, pid: int) -> Handle:
        """Return a new handle of this content."""
        handle = Handle(self, ino, pid)
        self.handles.add(handle)
        return handle

    def close(self, handle: Handle) -> bool:
        """Close a handle; False if it was closed already."""
        if handle not in self.handles:
            return False
        self.handles.remove(handle)
        return True

    def hold(self) -> None:
        """Keep it although no handle is open, until :meth:`unhold`."""
        self._holds += 1

    def unhold(self) -> None:
        """Undo one :meth:`hold`."""
        self._holds -= 1

    def need(self, ticket: object, start: int, stop: int) -> None:
        """A read waits for ``[start, stop)``: memory keeps these bytes until :meth:`unneed`."""
        self._needs[ticket] = start, stop

    def unneed(self, ticket: object) -> None:
        """The read is over."""
        self._needs.pop(ticket, None)

    def give(self, handle: Handle, start: int, stop: int) -> None:
        """A handle is given these bytes."""
        self.context.memory.read(self)
        if not self.verification.sure:
            handle.give(start, stop)
            self.verification.note_given(start, stop)
        if handle.plan_due:
            self.context.best_effort(self.record, self.extend, handle)

    @property
    def used(self) -> bool:
        """Whether somebody has it open, or wants it kept."""
        return bool(self.handles) or self._holds > 0

    @property
    def busy(self) -> bool:
        """Whether a task of it is running."""
        return bool(self.downloads) or self.verification.busy or self.length.running

    @property
    def sure(self) -> bool:
        """Whether the content is known to be right."""
        return self.verification.sure

    @property
    def length_doubtful(self) -> bool:
        """Whether the responses state another length than the record, and nothing proves it."""
        return self.length.doubtful

    @property
    def open_ended(self) -> bool:
        """Whether a body is being received that does not say where it ends."""
        return bool(self.loose)

    @property
    def whole_only(self) -> bool:
        """Whether the service gives this content from its first byte only."""
        if self.context.service.seekable(self.record.region) is False:
            return True
        return self._whole_seen and not self._ranges_seen

    @property
    def _stays_whole(self) -> bool:
        """Whether it is so small that all of it is kept; not once it had to give memory back."""
        return self.size <= SMALL and not self.verification.pressed

    def withholds(self, start: int, stop: int) -> bool:
        """Whether ``[start, stop)`` must not be given without asking further."""
        return (
            self.failure is not None
            or self.verification.withholds(start, stop)
            or self.length.withholds(stop)
            or self.open_end(stop) is not None
        )

    def open_end(self, stop: int) -> Download | None:
        """A download that may bring more than the record states, if ``stop`` reaches the end."""
        return next(iter(self.loose), None) if stop >= self.size else None

    async def await_verified(self, handle: Handle, deadline: float) -> None:
        """Wait for the check, fetching what it needs; the caller looks again afterwards."""
        verification = self.verification
        if verification.running:
            await verification.over()
        elif verification.sure:
            verification.confirm()
        elif (coming := self.cover(handle, *verification.lacks())) is not None:
            await coming[0].until(coming[1], deadline)
        elif (download := self.open_end(self.size)) is not None:
            await download.over.wait()  # only then the check may begin
        else:
            verification.recheck()
            await trio.lowlevel.checkpoint()  # if no check began, others still get their turn

    async def await_length(self, handle: Handle, deadline: float) -> None:
        """Wait until more is known of the length; the caller looks again afterwards."""
        if not self.length.running and self.length.provable_by_parts:
            coming = self.cover(handle, 0, self.size)
            if coming is not None:
                await coming[0].until(coming[1], deadline)
                return
        await self.length.settle(deadline)

    # demand

    def cover(self, handle: Handle, start: int, stop: int) -> tuple[Download, int] | None:
        """Ensure that all of ``[start, stop)`` is being downloaded; None if it is there.

        Returns the download of the first missing byte, and the offset to wait for.
        """
        gaps = self.entry.present.missing(start, stop)
        if not gaps:
            return None
        downloads = [self._ensure(handle, a, b) for a, b in gaps]
        self.context.best_effort(self.record, self.extend, handle)
        return downloads[0], min(gaps[0][1], downloads[0].stop)

    def _ensure(self, handle: Handle, start: int, stop: int) -> Download:
        first = None
        while start < stop:
            download = self._join(handle, start) or self._ask(handle, start, stop)
            first = first or download
            start = download.stop
        assert first is not None
        return first

    def _join(self, handle: Handle, offset: int) -> Download | None:
        """A running download to wait for; one too far behind is cut to end at ``offset``."""
        reaching = [
            download for download in self.downloads if download.head <= offset < download.stop
        ]
        if not reaching:
            return None
        download = max(reaching, key=lambda download: download.head)
        near = offset - download.head <= self._throughput.join_distance()
        if download.whole or self.whole_only or handle.window.is_sequential or near:
            download.priority.rise()
            return download
        download.cut(offset)
        return None

    def _ask(self, handle: Handle, start: int, stop: int) -> Download:
        """Start a download for what a reader waits for."""
        if self.whole_only:
            return self.start(0, self.size, urgent=True, whole=True)
        if self._stays_whole:
            near = self._missing(0, start) if start <= 256 * KIB else []
            begin = near[-1][0] if near and near[-1][1] == start else start
            return self.start(*self._missing(begin, self.size)[0], urgent=True)
        wide = self._starts_wide(handle)
        runs_on = self._runs_on(handle) and not wide
        if wide:
            end = start + self._first_size(handle, start, stop)
        elif runs_on:
            end = max(stop, self._far_end)
        else:
            end = stop + handle.window.ahead(self.most_ahead())
        first = self._missing(start, min(self.size, end))[0]
        return self.start(*first, urgent=True, runs_on=runs_on)

    def _runs_on(self, handle: Handle) -> bool:
        return handle.window.runs_on(presumed=self._throughput.presumes)

    def _starts_wide(self, handle: Handle) -> bool:
        """Whether it is read over several connections from the start.

        That is of use where each of them starts slowly, and the file will probably be read to its
        end.
        """
        if self.entry.in_memory or self.whole_only or self._stays_whole:
            return False
        slowly = self._throughput.starts_slowly(trio.current_time()) and self._runs_on(handle)
        return slowly and self._share > 1

    def _starting_connections(self, handle: Handle) -> int:
        """How many connections it begins with where it starts wide; fewer if for a header only."""
        header = handle.window.sequential_bytes <= INITIAL_READAHEAD
        return min(MOST_PARALLEL if header else MOST_STARTING, self._share)

    def _first_size(self, handle: Handle, start: int, stop: int) -> int:
        """The size of a download where it starts wide, for a read of ``[start, stop)``."""
        wanted, most = min(self.size - start, self.most_ahead()), self._starting_connections(handle)
        if not self._begins_hashed:
            return max(stop - start, download_size(wanted, most))
        [first, *_] = self._starting_pieces([(0, wanted)], max(1, most - len(self.downloads)))
        return first[1]

    @property
    def _begins_hashed(self) -> bool:
        """Whether its first downloads are made so that much of it can be hashed early."""
        begun = any(download.answered for download in self.downloads)
        return self.size <= CHECKED_FIRST and not begun

    def _starting_pieces(self, gaps: list[tuple[int, int]], most: int) -> list[tuple[int, int]]:
        return starting_pieces(gaps, most, self._throughput.window)

    @property
    def _far_end(self) -> int:
        """The end of a request for all that follows.

        While it is not known whether the region gives ranges, a little less than all is requested:
        a response with all of it then shows that it does not.
        """
        if self.context.service.seekable(self.record.region) is None:
            return self.size - LEAST_PART
        return self.size

    def start(
        self, start: int, stop: int, *,
        urgent: bool, whole: bool = False, runs_on: bool = False, last: bool = False,
    ) -> Download:  # fmt: skip
        """Start a download of ``[start, stop)``; if ``last``, its request goes after all others."""
        place = trio.current_time(), next(self.context.numbers)
        priority = Priority(urgent, place, last=last)
        download = Download(start, stop, priority, whole=whole, runs_on=runs_on)
        self.context.spawn(download.run, self, self.context)  # may raise Unavailable; it runs later
        self.downloads.append(download)
        self.context.downloading.add(self)
        if not start and urgent:
            self.context.best_effort(self.record, self.verification.expect)
        return download

    def _downloading(self) -> list[tuple[int, int]]:
        return [(download.head, download.stop) for download in self.downloads]

    def _missing(self, start: int, stop: int) -> list[tuple[int, int]]:
        """What of ``[start, stop)`` is neither there nor being downloaded."""
        return missing_ranges(self.entry.present, self._downloading(), start, stop)

    # reading ahead

    def most_ahead(self) -> int:
        """The largest window of a handle, in bytes."""
        handles = self.context.active_handles()
        return self.context.limits.most_ahead(self.entry.in_memory, handles)

    def extend(self, handle: Handle) -> None:
        """Plan read-ahead for a handle: start downloads of what its window lacks."""
        if self.entry.complete and not self.entry.in_memory:
            handle.planned(self.size + 1)
            return
        window = handle.window
        wide = bool(self._needs) and self._starts_wide(handle)
        if wide:
            self._throughput.widen(self._throughput.lead, trio.current_time())
        most = self._connections() if window.is_long else 1
        most = self._starting_connections(handle) if wide else most
        ahead = self.most_ahead() if wide else window.ahead(self.most_ahead(), most)
        soon = min(ahead, window.ahead(self.most_ahead(), most))
        handle.planned(window.next + download_size(soon, most) // 4)
        if self.entry.in_memory:
            self._keep()
        self._stir()
        if not self.whole_only and self._may_extend(handle):
            if wide and self._begins_hashed:
                self._begin(handle, ahead, most)
            else:
                self._fill(handle, ahead, most)

    def _may_extend(self, handle: Handle) -> bool:
        if self.failure is not None or handle not in self.handles:
            return False
        if trio.current_time() < self._quiet_until:
            return False
        known = self.answered or self.context.service.seekable(self.record.region) is not None
        return known or not self.downloads  # else the first response will show whether ranges work

    def _begin(self, handle: Handle, ahead: int, most: int) -> None:
        """Start the first downloads over ``most`` connections, each of which starts slowly."""
        begin, end = handle.window.next, min(self.size, handle.window.next + ahead)
        for start, stop in self._starting_pieces(
            self._missing(begin, end), most - len(self.downloads)
        ):
            self.start(start, stop, urgent=False)
        if self._missing(begin, end):
            handle.starve()

    def _fill(self, handle: Handle, ahead: int, most: int) -> None:
        """Start downloads of what the window of a handle lacks, so that ``most`` are running.

        One that runs on is enough, unless the speed of one connection is what limits: then that
        one is cut, and several shorter ones follow it.
        """
        begin, end = handle.window.next, min(self.size, handle.window.next + ahead)
        if self._stays_whole:
            begin, end = 0, self.size
        if self.entry.present.covers(begin, end):
            return
        largest = self._throughput.largest_download(trio.current_time())
        size = min(download_size(end - begin, most), largest)
        running = [one for one in self.downloads if begin < one.stop and one.head < end]
        if most > 1 and not self._stays_whole:
            for download in running:
                last = max(download.need, download.head + max(size, self._throughput.lead))
                if download.runs_on and download.stop - last > WORTH_CUTTING:
                    download.cut(last)
        free = max(0, max(2, most) - len(running))
        if most > 1 or self._stays_whole:
            gaps = self._missing(begin, end)
            if end == self.size and free:
                rest = sum(b - a for a, b in gaps)
                size = max(size, min(-(-rest // free), largest))
            lacking = list(split(gaps, size, end if end < self.size else None))
        else:
            far_end = self._far_end if self._runs_on(handle) else begin
            lacking = run_on(self.entry.present, self._downloading(), begin, end, far_end)
        if len(lacking) > free:
            handle.starve()
        for start, stop in lacking[:free]:
            self.start(start, stop, urgent=False, runs_on=most == 1)

    @property
    def _throughput(self) -> ThroughputEstimator:
        return self.context.throughput(self.record.region)

    def _connections(self) -> int:
        """How many connections this object may use at a time."""
        return min(self._throughput.connections, self._share)

    @property
    def _share(self) -> int:
        return max(1, self.context.limits.background // max(1, self.context.active_handles()))

    def line_limits(self, download: Download, lead: int) -> None:
        """A reader waits for its bytes, and they come no faster over one connection."""
        self._throughput.widen(lead, trio.current_time())
        if self._connections() > 1:
            for handle in self.handles:
                self.context.best_effort(self.record, self.extend, handle)

    def prefetch(self, stop: int, *, last: bool = False) -> None:
        """Download the first bytes up to ``stop``, though nobody reads them yet.

        If ``last``, the requests go after all others, until somebody does.
        """
        if self.whole_only and self.downloads:
            return
        for start, end in self._missing(0, min(stop, self.size)):
            self.start(start, end, urgent=False, last=last)

    def _keep(self) -> None:
        """Keep in memory what windows and waiting reads need; small contents stay whole."""
        if self._stays_whole or not self.handles:
            return
        kept = Ranges(self._needs.values())
        most = self.most_ahead()
        for handle in self.handles:
            window = handle.window
            # a whole download may run as far as the largest window, and a chunk beyond
            ahead = most + SLACK if self.whole_only else window.ahead(most)
            end = max(window.next + ahead, self._coming(window.next, most))
            kept.add(max(0, window.next - SLACK), end)
        self.verification.keep(kept)
        self.entry.keep(kept)

    def shed(self) -> int:
        """Keep in memory only what reads wait for; return how many bytes that is.

        What was not hashed yet is hashed first, so that a reader that goes on gets verified bytes.
        """
        if self.entry.memory_bytes:
            kept = Ranges(self._needs.values())
            self.verification.keep_unhashed(kept)
            self.entry.keep(kept)
            for handle in self.handles:
                handle.rest()  # else each download that ends would have these bytes fetched again
        return self.entry.memory_bytes

    def _coming(self, offset: int, most: int) -> int:
        """The end of what is there or being downloaded from ``offset`` on, at most ``most`` bytes.

        A player that reopens the file or seeks back finds it, however small its new window is.
        """
        end = self.entry.present.stop_of(offset)
        for download in sorted(self.downloads, key=lambda download: download.head):
            if end - SLACK <= download.head <= end + SLACK:
                end = max(end, self.entry.present.stop_of(download.stop))
        return min(end, offset + most)

    def _stir(self) -> None:
        """Readers went on: downloads that were paused may go on, too."""
        for download in self.downloads:
            if download.paused:
                download.reader_advanced()

    def limit(self, download: Download) -> int:
        """The offset up to which a download may receive now; beyond, it waits for a reader."""
        if download.stop - download.head <= RUN_OUT or self._stays_whole:
            return download.stop
        if not self.handles:
            return download.stop if self._holds else download.need
        most = self.most_ahead()
        if download.whole:
            if download.waiting or not self.entry.in_memory:
                return download.stop
            return max(handle.window.next for handle in self.handles) + most
        reached = [self._reach(handle, download, most) for handle in self.handles]
        return max(download.need, *reached)

    def _reach(self, handle: Handle, download: Download, most: int) -> int:
        """How far a handle wants a download to go, with a window of at most ``most`` bytes.

        Who plays a recording seldom waits, and needs nothing from far ahead.
        """
        window = handle.window
        if window.next <= download.stop and self._starts_wide(handle):
            if window.sequential_bytes <= INITIAL_READAHEAD:
                return max(window.next, download.start) + FIRST_OF_EACH
            if self._needs:
                return window.next + most
        return reach(window, download.stop, most)

    def patience_s(self, download: Download) -> float:
        """How long a paused download keeps its connection."""
        most = 0 if download.whole else self.most_ahead()
        near = any(0 <= download.head - handle.window.next <= most for handle in self.handles)
        return LONG_PATIENCE_S if near else PATIENCE_S

    # responses

    def request(self, download: Download) -> AbstractAsyncContextManager[Body]:
        """Request what a download still lacks."""
        return self.context.service.content(
            self.record,
            download.head,
            download.stop,
            urgent=download.priority,
            etag=self.etag or None,
        )

    def try_failed(self, error: ServiceError) -> None:
        """One request failed; there may be another one."""
        self.context.counts.failures += 1
        self.trouble = forget_frames(error)

    def accept(self, download: Download, body: Body) -> None:
        """Check the head of a response; raise if its body cannot be used."""
        self.answered = True
        if self.etag and body.etag and body.etag != self.etag:
            raise Changed(
                f"object {self.record.id} has other content than when it was opened", by_etag=True
            )
        if not self.verification.required:
            self.etag = self.etag or body.etag
        self.loose.discard(download)  # what an earlier try left open
        if body.total is not None:
            self.measure(body.total)
        elif body.stop is None:
            self.loose.add(download)
        if body.start == download.head:
            self._from_there(download, body)
        elif body.start < download.head:
            self._from_elsewhere(download, body.start)
        else:
            raise Malformed(f"object {self.record.id}: the service sent other bytes than asked for")

    def _from_there(self, download: Download, body: Body) -> None:
        """The body begins at ``head``. If that is 0, it may be the whole instead of a part."""
        if download.head > 0:
            self._ranges_seen = True
            return
        asked = download.requested
        if asked < self.size and (body.stop is None or body.stop > asked):
            self._whole_seen = True
            if self.whole_only:
                download.restart(0, self.size)

    def _from_elsewhere(self, download: Download, start: int) -> None:
        """The server ignored the range and sent the object from an earlier offset."""
        seekable = self.context.service.seekable(self.record.region)
        ranges = seekable if seekable is not None else self._ranges_seen
        if ranges and download.head - start > MOST_PART:
            raise Malformed(f"object {self.record.id}: the service sent all instead of a part")
        self._whole_seen = True
        rivals = (other for other in self.downloads if other is not download and other.whole)
        if any(other.answered and other.head <= download.head for other in rivals):
            download.cut(download.head)  # the other one downloads it
        else:
            download.restart(start, self.size)

    def continue_with(self, error: Changed) -> bool:
        """Whether reading goes on although a response has another ETag.

        It does if nobody was given a byte yet: then all is fetched anew. It does if the whole can
        be verified before more of it is given: it is of one version if it has the checksum of
        the record. Some services give each node, or each copy, an ETag of its own.
        """
        if not error.by_etag or self.failure is not None:
            return False
        if not self.verification.given and not self._renewed:
            self._renewed = True
            self.restore()
            return True
        if provable(self.record) and self.verification.can_gate:
            self._trust_no_etag()
            return True
        key = content_key(self.record)
        self.context.stale[key] = self.context.stale.get(key, 0) + 1
        return False

    def _trust_no_etag(self) -> None:
        self.etag = ""
        self.verification.require()

    def measure(self, total: int) -> None:
        """A response states the length.

        Raises Changed if an earlier response stated another one, and Corrupt if it states 0 but
        the checksum is not that of empty content.
        """
        known = self.length.stated
        if known is None and self.verification.sure:
            known = self.size
        if known is not None and total != known:
            raise Changed(f"object {self.record.id} has another length than when it was opened")
        self.length.state(total)
        if total == self.size == 0 and provable(self.record) and not is_empty(self.record):
            raise Corrupt(f"object {self.record.id} came empty, but has the checksum of content")
        self.resize(total)

    def end_of_body(self, download: Download, body: Body, surplus: int) -> None:
        """A body has ended, with ``surplus`` bytes beyond those that were written.

        Only bodies that did not state their end matter. Raises Malformed if the body may be
        incomplete. If more came than the record states, and the response does not show how much,
        the checksum decides; without one nothing is given.
        """
        if download not in self.loose:
            return
        self.loose.discard(download)
        if surplus or download.head < download.stop:
            self._end_elsewhere(download, body, surplus)
        if self.entry.complete:
            self.verification.completed()

    def _end_elsewhere(self, download: Download, body: Body, surplus: int) -> None:
        if body.framed:
            self.measure(download.head + surplus)
        elif not surplus:
            raise Malformed(
                f"object {self.record.id}: the response did not show that it was complete"
            )
        elif not provable(self.record):
            self.fail(Corrupt(
                f"object {self.record.id}: more comes than the {self.record.size} bytes of its "
                "record, and nothing says how much"
            ))  # fmt: skip

    def resize(self, size: int) -> None:
        """Another length was stated: what was planned beyond it is dropped.

        The file system is told once the length is proved.
        """
        if size == self.size:
            return
        log.info("object %s is said to have %d bytes, not %d", self.record.id, size, self.size)
        self.size = size
        self.entry.resize(size)
        for download in self.downloads:
            download.cut(size)
        if size != self.record.size:
            self.verification.length_changed()
        if not self.length.doubtful:
            self.tell_size(size)
        if self.entry.complete:
            self.verification.completed()

    def length_proved(self) -> None:
        """The length is proved: tell the file system, and verify the content if it is complete."""
        self.tell_size(self.size)
        if self.entry.complete:
            self.verification.completed()

    def tell_size(self, size: int) -> None:
        """Tell the file system a proved length, which the kernel takes for the end of the file."""
        if size != self.told:
            self.told = size
            self.context.notify(self.context.on_size, self.ino, size)

    def passed(self, false: list[tuple[int, int]]) -> None:
        """The content is right; of what was given before, these intervals were wrong."""
        for handle in self.handles:
            handle.judge(false)
        self.tell_size(self.size)

    def refetch(self) -> None:
        """The content is wrong: drop it and fetch it once more."""
        for handle in self.handles:
            handle.doubt()
        self.restore()
        self.context.notify(self.context.on_wrong, self.ino)

    def restore(self) -> None:
        """Forget all bytes and what the service stated of them; they are requested anew."""
        for download in self.downloads:
            download.cancel()
        self.entry.reset()
        self.etag = ""
        self.length.restart()
        self.resize(self.record.size)
        self.tell_size(self.record.size)

    def write(self, download: Download, chunk: Chunk) -> Step:
        """Store a chunk, wake those who waited for it, and say what the download does next."""
        start, stop = download.head, min(download.head + len(chunk), download.stop)
        if download.cancelled or stop <= start:
            return self._after_last(download)
        fresh = 0
        view = memoryview(chunk)
        for a, b in self.entry.present.missing(start, stop):
            self.entry.write(a, view[a - start : b - start])
            fresh += b - a
        if fresh and not self.entry.present.covers(start, stop):
            raise Unavailable(f"object {self.record.id}: neither disk nor memory has room for it")
        self.context.counts.fetched_bytes += fresh
        self.context.counts.discarded_bytes += len(chunk) - fresh
        self.verification.arrived()
        download.advance(stop)
        met = self.entry.present.stop_of(stop)
        if met > stop and (not download.whole or met >= download.stop):
            download.cut(stop)
        if self.entry.complete:
            self.verification.completed()
        if self.entry.in_memory:
            if download.whole:
                self._keep()  # what is passed on the way to a far offset is not kept
            self.context.memory.hold(self, self.entry.memory_bytes)
        if download.head >= download.stop:
            return self._after_last(download)
        return Step.CONTINUE

    def _after_last(self, download: Download) -> Step:
        beyond = download in self.loose and download.head >= self.size
        return Step.COUNT_REST if beyond else Step.STOP

    def ended(self, download: Download, *, done: bool) -> None:
        """The task of a download is over; ``done`` if it brought everything."""
        if isinstance(download.error, Changed):
            self.fail(download.error)  # while the entry is still its own
        self.downloads.remove(download)
        if not self.downloads:
            self.context.downloading.remove(self)
        self.context.counts.dropped += download.dropped
        was_loose = download in self.loose
        self.loose.discard(download)
        download.end()
        if download.error is not None:
            self._quiet_until = trio.current_time() + QUIET_S
        if was_loose and self.entry.complete:
            self.context.best_effort(self.record, self.verification.completed)
        if done:
            self._resume()
        self.task_ended()

    def task_ended(self) -> None:
        """One of its tasks is over: if it was the last one, the reader may close the object."""
        if not self.busy:
            self._on_idle(self)

    def _resume(self) -> None:
        """Read ahead for handles that had to wait for a free download."""
        for handle in self.handles:
            if handle.starved:
                self.context.best_effort(self.record, self.extend, handle)

    # the end

    def fail(self, error: ServiceError) -> None:
        """No read can succeed any more; the bytes that are here are not to be trusted."""
        if self.failure is not None:
            return
        self.failure = error
        if not self.verification.sure:
            self.tell_size(self.record.size)
        self.entry.reset()
        for download in list(self.downloads):
            download.fail(error)
        self.context.notify(self.context.on_wrong, self.ino)

    def unqueue(self) -> None:
        """Cancel downloads that nobody waits for and that were not answered yet."""
        for download in self.downloads:
            if not (download.priority or download.answered):
                download.cancel()

    def quit(self) -> None:
        """Cancel downloads nobody waits for, except those that are nearly done."""
        for download in self.downloads:
            if not download.waiting and (download.whole or download.stop - download.head > RUN_OUT):
                download.cancel()
