"""Copies chosen objects and their texts into a destination, and says what is missing.

What is there already and is what the service has is not read again, so that a run goes on where an
earlier one ended. Used by ``cli/export.py``.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import msgspec

from phonofs.errors import UsageError
from phonofs.export.contents import LASTING, Contents, NotCopied, Reason
from phonofs.export.copier import Copier, Display, Task, Without
from phonofs.export.copying import Staged, copy
from phonofs.export.day_texts import DayTexts
from phonofs.export.destination import Destination
from phonofs.export.ledger import File, Key, Ledger, now_text
from phonofs.export.workers import Workers
from phonofs.model import Record, State
from phonofs.search.answer import Found
from phonofs.units import format_size

RETRIES = 2
"""More tries for what failed in a way that may pass, each with records that are read anew."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the user asked for, besides the choice of objects.

    update   replace what has changed, and mark what was withdrawn
    prune    remove what was withdrawn
    texts    copy texts, too
    lenient  a length is enough if a checksum differs, because the mount takes it so
    """

    update: bool = False
    prune: bool = False
    texts: bool = True
    lenient: bool = False


class Missing(NamedTuple):
    """Something that was chosen and is not there.

    path  of the file, below the destination; '' for a time that could not be looked at
    key   of the object, or of that which it is a text of; None for a time
    kind  whether it is an object, a text, or a time of which not everything is known
    """

    path: str
    key: Key | None
    kind: Literal["object", "text", "time"]
    reason: Reason
    detail: str


class Run:
    """One run of an export.

    seen       the chosen objects
    customers  whose objects they are
    missing    what of them is not there
    counts     what the run did with files: copied, kept, withdrawn, pruned

    Owns these; ``_wanted``, the paths of the files that belong into the destination; and
    ``_texts_whole``, whether all texts could be listed, without which none counts as withdrawn.
    """

    def __init__(
        self,
        destination: Destination,
        ledger: Ledger,
        contents: Contents,
        workers: Workers,
        rules: Rules,
        display: Display,
    ) -> None:
        self._destination = destination
        self._ledger = ledger
        self._contents = contents
        self._stop = workers.stop
        self._rules = rules
        self._display = display
        self._copier = Copier(destination, ledger, workers, display)
        self._texts = DayTexts(destination, ledger, contents, workers)
        self._wanted: set[str] = set()
        self._texts_whole = rules.texts
        self.seen: set[Key] = set()
        self.customers: set[str] = set()
        self.missing: list[Missing] = []
        self.counts = {"copied": 0, "kept": 0, "withdrawn": 0, "pruned": 0}

    def copy(
        self,
        found: Iterable[Found],
        again: Callable[[Sequence[str]], Iterable[Found]],
        customers: Collection[str] = (),
    ) -> None:
        """Copy what was found; ``again`` looks for paths another time, with new records.

        ``customers`` are those whose objects an earlier run found. Raises UsageError if there is no
        room, or all objects are other customers'; OSError of the destination.
        """
        for result in found:
            self._see(result)
            if len(self.seen) % 100 == 0:
                self._display.listed(len(self.seen))
        if customers and self.customers and self.customers.isdisjoint(customers):
            raise UsageError(
                f"{self._destination.path} is an export of another account: choose another folder"
            )
        self._copy_objects(again)
        if self._rules.texts:
            self._copy_texts()

    def end(self, not_looked_at: Sequence[str]) -> None:
        """Deal with what is not wanted any more, and with what is not in place any more.

        ``not_looked_at`` says what could not be listed: then nothing counts as withdrawn. Raises
        OSError of the destination.
        """
        for each in self.missing:
            if each.path in self._ledger.files and self._ledger.in_place(each.path) is None:
                self._ledger.remove(each.path)
        for sentence in not_looked_at:
            self.missing.append(Missing("", None, "time", Reason.UNKNOWN, sentence))
        if not not_looked_at and self._rules.update:
            self._withdraw()

    def flush(self) -> None:
        """Bring into place what was copied before an interruption. Raises OSError."""
        self._copier.commit()

    # objects

    def _see(self, result: Found) -> Key | None:
        """Take in an object that was chosen; return its key."""
        record = result.record
        if record is None:
            return None
        if record.customer:
            self.customers.add(record.customer)
        self._ledger.see(result.path, record)
        key = record.region, record.id
        self.seen.add(key)
        self._wanted.add(result.path)
        return key

    def _copy_objects(self, again: Callable[[Sequence[str]], Iterable[Found]]) -> None:
        keys = [key for key in sorted(self.seen, key=self._path) if self._is_to_copy(key)]
        size = sum(self._ledger.objects[key].size for key in keys)
        self._check_room(size)
        self._display.begin(len(keys), size)
        failed = self._copied(map(self._task, keys))
        for _ in range(RETRIES):
            if all(each.reason in LASTING for each in failed):
                break
            self.missing += [each for each in failed if each.reason in LASTING]
            paths = [each.path for each in failed if each.reason not in LASTING]
            keys = list(filter(None, map(self._see, again(paths))))
            gone = set(paths) - {self._path(key) for key in keys}
            self.missing += [each for each in failed if each.path in gone]
            keys = [key for key in keys if self._is_to_copy(key)]
            self._display.begin(len(keys), 0)
            failed = self._copied(map(self._task, keys))
        self.missing += failed

    def _path(self, key: Key) -> str:
        return self._ledger.objects[key].path

    def _is_to_copy(self, key: Key) -> bool:
        """Return whether an object is to be copied; note it if it is missing and cannot be."""
        known = self._ledger.objects[key]
        path = known.path
        file = self._ledger.in_place(path)
        if file is not None and self._is_of(file, key):
            self._keep(file, key)
        elif file is not None and not self._rules.update:
            self._miss(path, key, Reason.CHANGED, "the service has other content: use --update")
        elif known.state == State.ARCHIVED:
            self._miss(path, key, Reason.ARCHIVED, "phonofs restore asks for it back")
        else:
            return True
        return False

    def _is_of(self, file: File, key: Key) -> bool:
        """Return whether a file has the content that the service has."""
        return file.key == key and file.fingerprint == self._ledger.record(key).fingerprint

    def _task(self, key: Key) -> Task:
        """Return how to copy an object."""
        path, record = self._path(key), self._ledger.record(key)
        work = partial(self._copy_one, path, record)
        return Task(path, key, work, "object", record.fingerprint)

    def _keep(self, file: File, key: Key) -> None:
        """Note that a file is what it should be, and whose it is now."""
        self.counts["kept"] += 1
        if file.withdrawn or file.key != key:
            region, id = key
            kept = msgspec.structs.replace(file, region=region, id=id, withdrawn="")
            self._ledger.add([kept])

    def _miss(self, path: str, key: Key, reason: Reason, detail: str) -> None:
        self.missing.append(Missing(path, key, "object", reason, detail))

    def _check_room(self, size: int) -> None:
        free = self._destination.free_bytes()
        if size > free:
            raise UsageError(
                f"{self._destination.path} has room for {format_size(free)}, and "
                f"{format_size(size)} are to be copied"
            )

    def _copied(self, tasks: Iterable[Task]) -> list[Missing]:
        """Copy files; return those for which that failed."""
        failed = []
        for task, outcome in self._copier.run(tasks):
            if isinstance(outcome, NotCopied):
                failed.append(Missing(task.path, task.key, task.kind, outcome.reason, str(outcome)))
            elif outcome is not Without.ABSENT:
                self._wanted.add(task.path)
                if outcome is None:
                    self.counts["copied"] += 1
                else:
                    self._keep(self._ledger.files[task.path], task.key)
        return failed

    def _copy_one(self, path: str, record: Record) -> Staged:
        """Copy an object into the staging folder. Runs in a thread."""
        source = self._contents.open(path)
        try:
            return copy(
                source,
                self._destination,
                size=record.size,
                checksum=record.checksum,
                lenient=self._rules.lenient,
                advance=self._display.advance,
                stop=self._stop,
            )
        finally:
            source.close()

    # texts

    def _copy_texts(self) -> None:
        """Copy the texts of the objects that are there."""
        days = defaultdict[str, dict[str, Key]](dict)
        for key in self.seen:
            path = self._path(key)
            if self._ledger.in_place(path) is not None:
                days[path.rpartition("/")[0]][path] = key
        for day in sorted(days):
            try:
                tasks = list(self._texts.tasks(day, days[day]))
            except NotCopied as error:
                self._texts_whole = False
                detail = f"the texts of {day} could not be listed: {error}"
                self.missing.append(Missing(day, None, "time", error.reason, detail))
                continue
            self._display.begin(len(tasks), 0)
            failed = self._copied(tasks)
            self._wanted.update(each.path for each in failed)
            self.missing += failed

    # what is not wanted any more

    def _withdraw(self) -> None:
        now = now_text()
        for path, file in sorted(self._ledger.files.items()):
            if path in self._wanted or self._may_belong(file):
                continue
            if self._rules.prune:
                self._prune(path)
            elif not file.withdrawn:
                self._ledger.add([msgspec.structs.replace(file, withdrawn=now)])
                self.counts["withdrawn"] += 1

    def _may_belong(self, file: File) -> bool:
        """Return whether a file may be a text of a chosen object: not all of those are known."""
        return file.kind == "text" and not self._texts_whole and file.key in self.seen

    def _prune(self, path: str) -> None:
        if self._destination.status(path) is not None:
            self._destination.remove(path)
        self._ledger.remove(path)
        self.counts["pruned"] += 1
