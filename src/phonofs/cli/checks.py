"""The checks of ``doctor``. Each returns a text, or raises an error that tells the remedy."""

import hashlib
import os
import shutil
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import trio

from phonofs.catalogue.types import Scope
from phonofs.checksum import expected
from phonofs.cli.account import Account
from phonofs.config import Settings
from phonofs.errors import (
    Corrupt,
    MountFailed,
    PhonofsError,
    ServiceError,
    Unavailable,
    UsageError,
)
from phonofs.fuse.mount_check import FUSE_DEVICE, check_device, check_others_allowed
from phonofs.model import Query, Record, State
from phonofs.service.session import new_request
from phonofs.units import format_count, format_duration, format_size

CLOCK_TOLERANCE_S = 60.0
"""The clock affects certificates and the times shown; a minute harms neither."""
SAMPLE = 100
"""How many of the newest records are fetched; content is tried of one, and of one per type."""
SMALL = 4 << 20
"""Bytes of the largest content that is downloaded to compare its checksum."""

METHODS = {
    "range": "content by ranges",
    "presign": "content by presigned URLs",
    "redirect": "content by redirects to presigned URLs",
    "stream": "content as whole streams only: a seek far ahead must wait",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; ``error`` is None if everything is fine."""

    name: str
    text: str
    error: PhonofsError | None = None


def attempt(name: str, check: Callable[[], str]) -> Finding:
    """Run a check that does not wait for the network; return its finding."""
    try:
        return Finding(name, check())
    except PhonofsError as error:
        return Finding(name, str(error), error)


def check_machine() -> Iterator[Finding]:
    """Check what every mount needs from this machine."""
    yield attempt("FUSE", _fuse_device)
    yield attempt("fusermount3", _fusermount)


def check_settings(settings: Settings) -> Iterator[Finding]:
    """Check what the settings of this profile need from this machine."""
    yield attempt("other users", lambda: _allow_other(settings))
    yield attempt("cache folder", lambda: _cache_folder(settings))


def _fuse_device() -> str:
    check_device()
    return f"{FUSE_DEVICE} can be opened"


def _fusermount() -> str:
    program = shutil.which("fusermount3")
    if program is None:
        if os.geteuid() == 0:
            return "not installed; root does not need it"
        raise MountFailed("fusermount3 is missing: install the package fuse3")
    if os.geteuid() != 0 and not os.stat(program).st_mode & stat.S_ISUID:
        raise MountFailed(f"{program} is not setuid root: as root, run `chmod u+s {program}`")
    return program


def _allow_other(settings: Settings) -> str:
    if not settings.allow_other:
        return "allow_other is off: only you can read the mount"
    check_others_allowed()
    return "allow_other is on, and allowed"


def _cache_folder(settings: Settings) -> str:
    folder = settings.cache_dir
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if existing == folder:
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode):
            raise UsageError(f"{folder} is not a folder: move it away, or set cache_dir")
        if status.st_uid != os.geteuid():
            raise UsageError(f"{folder} belongs to someone else: set cache_dir to one of your own")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise UsageError(f"{folder} is open to others: run `chmod 700 {folder}`")
    elif not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"{folder} cannot be made below {existing}: set cache_dir")
    free = shutil.disk_usage(existing).free
    room = max(free - settings.cache_min_free, 0)
    if settings.cache_size and room == 0:
        raise UsageError(
            f"{existing} has {format_size(free)} free, less than cache_min_free: free some, or "
            "set cache_dir or cache_min_free"
        )
    return f"{folder}: {format_size(free)} free, {format_size(settings.cache_size)} allowed"


async def check_service(settings: Settings, account: Account) -> AsyncIterator[Finding]:
    """Check the service, from the network to the bytes of one object per region."""
    try:
        yield Finding("clock", await _clock(settings, account))
    except ServiceError as error:
        yield Finding("service", str(error), error)
        return
    except PhonofsError as error:
        yield Finding("clock", str(error), error)
    try:
        with trio.fail_after(settings.read_deadline):
            await account.tokens.token()
        regions = list(settings.regions) or await account.client.regions()
    except trio.TooSlowError:
        yield Finding("token", "no token came in time", ServiceError("no token came in time"))
        return
    except PhonofsError as error:
        yield Finding("token", str(error), error)
        return
    life = format_duration(account.tokens.statistics()["life_s"])
    yield Finding("token", f"granted, for {life}; it covers the storage product")
    yield Finding("regions", ", ".join(regions))
    sample: list[Record] = []
    for region in regions:
        finding, records = await _region(settings, account, region)
        yield finding
        sample += records
    if sample:
        yield await _checksums(settings, account, sample)


async def _clock(settings: Settings, account: Account) -> str:
    asked = time.time()
    answer, _ = await account.transport.request(
        new_request("doctor", settings.api_url), limit_bytes=1 << 20
    )
    now = (asked + time.time()) / 2
    try:
        theirs = parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError):
        return "the service does not say what time it is"
    off_s = now - theirs
    if abs(off_s) > CLOCK_TOLERANCE_S:
        way = "ahead of" if off_s > 0 else "behind"
        raise UsageError(
            f"this machine's clock is {format_duration(abs(off_s))} {way} the service's: "
            "set it, or turn on `timedatectl set-ntp true`"
        )
    return "agrees with the service's"


async def _region(
    settings: Settings, account: Account, region: str
) -> tuple[Finding, list[Record]]:
    """Return how a region delivers content, and the records that were fetched."""
    name = f"region {region}"
    try:
        page = await account.client.search(
            region, Query(sort="createdTime", descending=True), limit=SAMPLE
        )
        sample = next((record for record in page.records if record.size > 1), None)
        if sample is None:
            nothing = "no object to try: how content is delivered is not known yet"
            return Finding(name, nothing), page.records
        await _first_byte(account, sample)
        count = await _count(settings, account, region)
    except PhonofsError as error:
        return Finding(name, str(error), error), []
    total = "" if count is None else f"{format_count(count, 'object')}, "
    text = total + METHODS.get(account.client.delivery_method(region), "content works")
    for method, reason in account.client.failed_methods(region).items():
        text += f"; {METHODS.get(method, method)} failed: {reason}"
    return Finding(name, text), page.records


async def _checksums(settings: Settings, account: Account, sample: Sequence[Record]) -> Finding:
    """Find the right setting of ``verify`` from one small content of each type."""
    name = "checksums"
    right: list[str] = []
    differing: list[str] = []
    for record in _one_of_each_type(sample):
        try:
            found = await _has_its_checksum(account, record)
        except PhonofsError as error:
            return Finding(name, f"{record.type}: {error}", error)
        (right if found else differing).append(record.type)
    types = ", ".join(differing)
    if differing and settings.verify == "checksum":
        text = (
            f"contents of {types} do not match the checksums of their records, so reading them "
            "fails: with verify=length they can be read if two downloads agree"
        )
        return Finding(name, text, UsageError(text))
    if differing:
        return Finding(name, f"contents of {types} do not match: verify=length fits")
    if not right:
        return Finding(name, "not tried: no small object has a checksum that can be computed")
    fits = "fits" if settings.verify == "checksum" else "would fit, and needs no second download"
    return Finding(name, f"right for {', '.join(right)}: verify=checksum {fits}")


def _one_of_each_type(sample: Sequence[Record]) -> list[Record]:
    """Return the smallest checkable record of each type, sorted by type."""
    found: dict[str, Record] = {}
    for record in sample:
        checkable = expected(record.checksum) is not None and record.state == State.AVAILABLE
        if checkable and 0 < record.size <= SMALL:
            found[record.type] = min(found.get(record.type, record), record, key=_size)
    return [found[name] for name in sorted(found)]


def _size(record: Record) -> int:
    return record.size


async def _has_its_checksum(account: Account, record: Record) -> bool:
    """Return whether a content has its checksum. Raises Corrupt if two downloads of it differ."""
    want = expected(record.checksum)
    first, length = await _digest(account, record)
    if want is None or want.matches(first):
        return True
    if (first, length) != await _digest(account, record) or length != record.size:
        raise Corrupt(f"object {record.id} came with a wrong length, or with other bytes each time")
    return False


async def _digest(account: Account, record: Record) -> tuple[bytes, int]:
    """Return the MD5 and the length in bytes of a whole content."""
    digest, length = hashlib.md5(usedforsecurity=False), 0
    async with account.client.whole_content(record) as body:
        async for chunk in body:
            digest.update(chunk)
            length += len(chunk)
    return digest.digest(), length


async def _count(settings: Settings, account: Account, region: str) -> int | None:
    """Return how many objects of a region a mount shows, of any date; None if not known.

    ``total`` counts pages or records, depending on the service; with one record per page, the two
    are equal.
    """
    scope = Scope(settings.types, settings.archived)
    shown = Query(types=scope.types, states=scope.states)
    page = await account.client.search(region, shown, limit=SAMPLE)
    if page.last or page.total is None:
        return page.count if page.last else None
    return (await account.client.search(region, shown, limit=1)).total


async def _first_byte(account: Account, record: Record) -> None:
    """Read the first byte; try twice, because the client changes its method after a failure."""
    try:
        await _first_byte_at_once(account, record)
    except Unavailable:
        await _first_byte_at_once(account, record)


async def _first_byte_at_once(account: Account, record: Record) -> None:
    async with account.client.content(record, 0, 1) as body:
        async for _ in body:
            return
