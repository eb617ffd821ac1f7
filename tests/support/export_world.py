"""An export without a mount: an account in memory, a destination on disk, faults at any step."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path

import msgspec

from phonofs.export.contents import NotCopied, Reason, TextName
from phonofs.export.destination import opened
from phonofs.export.ledger import Ledger
from phonofs.export.lists import (
    Choice,
    Description,
    Lists,
    read_description,
    write_description,
)
from phonofs.export.run import Rules, Run
from phonofs.export.workers import workers
from phonofs.fakeservice.account import Item, flat_item
from phonofs.search.answer import Found
from phonofs.service.records import parse_record
from tests.support.accounts import NOON_MS

DAY = "2026/2026-03/2026-03-02"


@dataclass
class Object:
    """A file of the account: its record, its bytes, and why it cannot be read, if it cannot."""

    item: Item
    content: bytes
    failure: NotCopied | None = None
    mtime_ns: int = NOON_MS * 1_000_000

    def found(self, path: str) -> Found:
        record = parse_record(msgspec.json.encode(self.item.record()), self.item.region)
        return Found(path, record)


class _Open:
    def __init__(self, content: bytes, mtime_ns: int) -> None:
        self._content = content
        self.size = len(content)
        self.mtime_ns = mtime_ns

    def read_into(self, buffer: memoryview, offset: int) -> int:
        data = self._content[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        pass


@dataclass
class Account:
    """The objects and texts by path; ``opens`` counts what was read.

    ``vanishing`` are texts that are listed, and gone when they are asked for.
    """

    objects: dict[str, Object] = field(default_factory=dict)
    texts_by_path: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    vanishing: set[str] = field(default_factory=set)
    opens: int = 0

    def add(self, id: str, size: int = 3000, day: str = DAY, **fields: object) -> str:
        item = flat_item(id, size, NOON_MS, **fields)
        path = f"{day}/{id}.mp3"
        self.objects[path] = Object(item, b"".join(item.content.pieces(0, item.content.size)))
        return path

    def found(self) -> Iterator[Found]:
        for path, each in sorted(self.objects.items()):
            yield each.found(path)

    def again(self, paths: Sequence[str]) -> Iterator[Found]:
        for path in paths:
            if path in self.objects:
                yield self.objects[path].found(path)

    def open(self, path: str) -> _Open:
        if path not in self.objects:
            raise NotCopied(Reason.WITHDRAWN, "it is not there")
        each = self.objects[path]
        if each.failure is not None:
            raise each.failure
        self.opens += 1
        return _Open(each.content, each.mtime_ns)

    def texts(self, day: str) -> list[TextName]:
        return [
            TextName(path.rpartition("/")[2], of)
            for path, (of, _) in sorted(self.texts_by_path.items())
            if path.startswith(f"{day}/")
        ]

    def made_from(self, day: str, name: str) -> list[str]:
        if f"{day}/{name}" in self.vanishing:
            raise NotCopied(Reason.WITHDRAWN, "it is not there")
        return []

    def text_status(self, day: str, name: str) -> tuple[int, int] | None:
        _, content = self.texts_by_path[f"{day}/{name}"]
        return len(content), NOON_MS * 1_000_000

    def open_text(self, day: str, name: str) -> _Open:
        self.opens += 1
        return _Open(self.texts_by_path[f"{day}/{name}"][1], NOON_MS * 1_000_000)


class Quiet:
    """A display that shows nothing."""

    def listed(self, objects: int) -> None:
        pass

    def begin(self, files: int, size: int) -> None:
        pass

    def advance(self, size: int) -> None:
        pass

    def done(self, files: int) -> None:
        pass


def export(
    account: Account,
    path: Path,
    *,
    not_looked_at: Sequence[str] = (),
    **rules: bool,
) -> Run:
    """Export everything, as the command does."""
    with opened(str(path)) as destination:
        before = read_description(destination)
        description = Description(
            version="test",
            profile="default",
            chosen=Choice(),
            pages=before.pages if before else [],
            customers=before.customers if before else [],
        )
        write_description(destination, description)
        with ledger_of(destination) as ledger, workers(4) as threads:
            run = Run(destination, ledger, account, threads, Rules(**rules), Quiet())
            run.copy(account.found(), account.again, description.customers)
            run.end(not_looked_at)
            lists = Lists(destination, ledger, UTC, "default")
            description = msgspec.structs.replace(description, customers=sorted(run.customers))
            write_description(destination, lists.write(run.missing, description))
            destination.finish()
    return run


@contextmanager
def ledger_of(destination) -> Iterator[Ledger]:
    ledger = Ledger(destination)
    try:
        yield ledger
    finally:
        ledger.close()


def tree(path: Path) -> dict[str, bytes]:
    """Return the exported files of a destination, without its lists."""
    return {
        str(each.relative_to(path)): each.read_bytes()
        for each in path.rglob("*")
        if each.is_file() and each.relative_to(path).parts[0].isdecimal()
    }
