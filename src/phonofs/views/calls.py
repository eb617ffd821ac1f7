"""Joins the objects of each call. Pure.

The date tree shows objects, a view shows calls: a recording, and what was made of it. Objects of a
call share the tag ``callId``. What is made of a recording often comes after midnight, so a day is
joined together with the day after it, as far as that is known.
"""

import hashlib
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from phonofs.checksum import is_plain
from phonofs.model import Record, State
from phonofs.search.facets import duration_ms
from phonofs.tree.naming import first_tag
from phonofs.tree.sanitize import clean, cut, is_device

RECORDINGS = frozenset(
    {"callrecording", "callcenterrecording", "voicemail", "callcentervoicemail", "meeting"}
)
"""The types of objects that others of their call are attached to."""

COMMENT, NOTES, SUMMARY, TRANSCRIPT = (
    "voicecommentrecording",
    "agentnotes",
    "summary",
    "transcription",
)

TEXT_TYPES = (TRANSCRIPT, SUMMARY, NOTES)
"""The types of objects that texts are made of."""

LONGEST_VALUE = 180
"""Bytes of an agent's or a queue's name that are used as the name of a directory."""


class CallObject(msgspec.Struct, frozen=True, gc=False):
    """What a view needs to know of an object.

    ino, id, name  its inode number, the service's id, its name in the date tree
    readable       whether it can be read now: it is available, and what it is made of worked
    start          sorts the objects of a call: when it was created (epoch ms)
    modified       when its record changed last (epoch ms)
    content        a hash of the fingerprint of its content
    record         a checksum of its record
    summed         whether md5sum can check it: it can be read, and its record has a plain MD5
    call           the tag ``callId``
    source         the id of the object that it was made of
    speaker        whose side of the call it has: ``owner`` or ``external``; '' for both
    question       the number of the question that a comment answers
    agent, queue   who took the call, and from which queue, as a directory can be called
    owner, party   the names of both sides, as the tags have them
    duration_ms    of the call; 0 if not known
    """

    ino: int
    id: str
    name: str
    type: str
    readable: bool
    start: int
    modified: int
    content: int
    record: int
    summed: bool
    call: str = ""
    source: str = ""
    speaker: str = ""
    question: str = ""
    agent: str = ""
    queue: str = ""
    owner: str = ""
    party: str = ""
    duration_ms: int = 0

    @property
    def order(self) -> tuple[int, str]:
        """Sorts the objects of a call."""
        return self.start, self.id


class Attached(NamedTuple):
    """An object of a call, and the recording or comment that it was made of."""

    what: CallObject
    of: CallObject


class Call(NamedTuple):
    """An object with those that are attached to it, in order.

    day   the name of the day that ``main`` is in
    main  a recording, or an object that belongs to none
    """

    day: str
    main: CallObject
    attached: tuple[Attached, ...] = ()

    def objects(self) -> Iterator[CallObject]:
        """Yield all objects of the call."""
        yield self.main
        for attached in self.attached:
            yield attached.what


def call_object(ino: int, name: str, record: Record) -> CallObject:
    """Return what a view needs to know of the object with this record."""
    tag = partial(first_tag, record.tags)
    who = tag("agentName", "userName")
    inbound = tag("direction").upper() == "INBOUND"
    party = tag("callerName", "callerId") if inbound else tag("calleeName", "calleeId")
    return CallObject(
        ino=ino,
        id=record.id,
        name=name,
        type=record.type,
        readable=record.state == State.AVAILABLE and tag("result").lower() in ("", "ok"),
        start=record.created_ms,
        modified=record.updated_ms,
        content=hash_of(record.fingerprint),
        record=zlib.crc32(record.source),
        summed=record.state == State.AVAILABLE and is_plain(record.checksum),
        call=tag("callId"),
        source=tag("sourceId", "sourceObjectId"),
        speaker=cut(clean(tag("speaker")[:LONGEST_VALUE].lower()), 20),
        question=cut(clean(tag("pcsQuestionNumber")[:LONGEST_VALUE]), 4),
        agent=directory_name(who),
        queue=directory_name(tag("queueName")),
        owner=who,
        party=party or tag("address"),
        duration_ms=duration_ms(record) or 0,
    )


def hash_of(*values: object) -> int:
    """Return a hash of 48 bits that is the same in every process."""
    digest = hashlib.blake2b(repr(values).encode("utf-8", "replace"), digest_size=6)
    return int.from_bytes(digest.digest(), "big")


def directory_name(value: str) -> str:
    """Return the name of the directory of an agent or a queue; '' if it can have none."""
    name = clean(value[: 4 * LONGEST_VALUE])
    if len(name.encode()) > LONGEST_VALUE:
        name = cut(name, LONGEST_VALUE)
    return f"_{name}" if is_device(name) else name


def joined(day: str, objects: Iterable[CallObject], after: Iterable[CallObject] = ()) -> list[Call]:
    """Return the calls of a day in the order of their names.

    ``after`` are the objects of the day after, of which some may belong to calls of this day.
    """
    objects = list(objects)
    recordings = defaultdict[str, list[CallObject]](list)
    for each in objects:
        if each.call and each.type in RECORDINGS:
            recordings[each.call].append(each)
    others = defaultdict[str, list[CallObject]](list)
    alone: list[CallObject] = []
    for each in objects:
        if each.call not in recordings:
            alone.append(each)
        elif each.type not in RECORDINGS:
            others[each.call].append(each)
    for each in after:
        if each.call in recordings and each.type not in RECORDINGS:
            others[each.call].append(each)
    calls = [Call(day, each) for each in alone]
    for call, mains in recordings.items():
        calls += _attach(day, sorted(mains, key=_order), sorted(others[call], key=_order))
    return sorted(calls, key=lambda call: call.main.name)


def _order(each: CallObject) -> tuple[int, str]:
    return each.order


def _attach(day: str, mains: Sequence[CallObject], others: Sequence[CallObject]) -> list[Call]:
    """Attach each of the other objects to the recording that it names, or else to the first."""
    by_id = {each.id: each for each in (*mains, *others)}
    of_main: dict[int, list[Attached]] = {each.ino: [] for each in mains}
    for each in others:
        sources = list(_sources(each, by_id))
        comment = next((one for one in sources if one.type == COMMENT), None)
        main = next((one for one in sources if one.ino in of_main), mains[0])
        of_main[main.ino].append(Attached(each, comment or main))
    return [Call(day, main, tuple(of_main[main.ino])) for main in mains]


def _sources(each: CallObject, by_id: dict[str, CallObject]) -> Iterator[CallObject]:
    """Yield what an object was made of, what that was made of, and so on."""
    seen = {each.ino}
    while (found := by_id.get(each.source)) is not None and found.ino not in seen:
        seen.add(found.ino)
        yield (each := found)


def without_repeated(calls: Iterable[Call]) -> list[Call]:
    """Return the calls of consecutive days, without what is attached to a call already."""
    calls = list(calls)
    attached = {each.what.ino for call in calls for each in call.attached}
    return [call for call in calls if call.main.ino not in attached]


def agent_of(call: Call) -> str:
    """Return whose call it is: the name its recording has, else the first that any object has."""
    return next((each.agent for each in call.objects() if each.agent), "")


def queue_of(call: Call) -> str:
    """Return the queue of a call, likewise."""
    return next((each.queue for each in call.objects() if each.queue), "")
