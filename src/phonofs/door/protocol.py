"""The messages between a daemon and its clients. Pure; used by both halves.

The door is a unix stream socket. A message is the length of its head (4 bytes, big endian), the
head (MessagePack), and as many raw bytes as ``body`` in the head says; without ``body`` there are
none. The client sends a request and reads all of its answer before it sends the next one. A request
has no body.

========= ==============================================================================
request   answer
========= ==============================================================================
hello     ``Welcome``; a client that finds another ``protocol`` there must not go on
info      ``About``
ls        ``Entries`` of at most ENTRIES_AT_ONCE, as many as are needed, then ``End``
find      likewise
open      ``Opened``
read      ``Data``, as many as are needed; the last one says so
close     ``End``
cat       for each item, in order, what ``read`` answers, or ``Error``
record    ``Data`` with the record's own JSON
attribute ``Data`` with the value of an extended attribute
status    ``Data`` with the status document, as ``phonofs status --json`` prints it
leave     ``End``, and the daemon ends; or ``Error`` (EBUSY)
========= ==============================================================================

Instead of any message of an answer there may be an ``Error``. It ends the answer, except in that
of ``cat``, where it ends the item. A listing that cannot be had whole ends with an ``Error``, never
with ``End``. What is not a request is answered by hanging up, and so is a client that does not take
one message within SLOW_S. If there are too many connections, a new one gets an ``Error`` (EAGAIN),
and is hung up on.

Paths are relative to the root of the profile, without a leading slash; '' is the root. Besides the
tree of a mount there is ``.id/REGION/ID``, also with an extension, for one object by its
identifier; it is not listed, and it costs one request where a name costs the listing of its day.
"""

import struct
from typing import Literal

import msgspec

VERSION = 1
"""The version of this protocol. ``hello`` and ``Welcome`` stay readable in all of them."""

LENGTH = struct.Struct(">I")
"""The length of a head, in bytes, ahead of it."""

HEAD_MAX = 1 << 20
"""The most bytes of a head; whoever announces more is hung up on."""

BODY_MAX = 1 << 20
"""The most bytes of the body of one message."""

ENTRIES_AT_ONCE = 1000
"""The most entries of one message."""

CAT_MAX = 2000
"""The most items of one ``cat``; their paths must fit into HEAD_MAX, too."""

HANDLES_MAX = 1000
"""The most files that one connection may have open."""

FIND_MAX = 200_000
"""The most entries of one ``find``; E2BIG if there are more."""

IDLE_S = 60.0
"""A connection that has no file open is hung up on after that long without a request."""

SLOW_S = 60.0
"""A client that takes longer to receive one message, and what the kernel holds before it (2 MiB at
most), is hung up on."""

BY_ID = ".id"
"""The directory that is not listed: ``.id/REGION/ID``."""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A file or directory.

    name         in ``info`` its own name; in ``ls`` its name, in ``find`` its path, below the
                 directory that was asked for ('' for a file that was itself asked for)
    size         bytes; -1 for a text of a view that was not made yet: ``info`` and ``open`` make it
    mtime_ms, ctime_ms, created_ms   UTC epoch ms; created_ms is 0 for what is no object
    ino          its inode number in a mount of the same cache
    fingerprint  identifies the content: it is another one if the bytes are ('' for a directory, and
                 for a text in ``ls`` and ``find``)
    id, region, object_type, mime_type, state   of an object; '' for a directory. A text has an
                 object_type and a mime_type. In ``ls`` and ``find`` object_type and mime_type may
                 be ''.
    """

    name: str
    type: Literal["file", "directory"]
    size: int
    mtime_ms: int
    ctime_ms: int
    created_ms: int
    ino: int
    fingerprint: str = ""
    id: str = ""
    region: str = ""
    object_type: str = ""
    mime_type: str = ""
    state: str = ""


# requests


class Hello(msgspec.Struct, tag_field="op", tag="hello"):
    """Ask who is there."""

    protocol: int = VERSION


class Info(msgspec.Struct, tag_field="op", tag="info"):
    """Ask for the entry of a path. Links are followed. Errors: ENOENT, ENOTDIR, EIO, EACCES."""

    path: str


class Ls(msgspec.Struct, tag_field="op", tag="ls"):
    """List a directory (ENOTDIR if it is a file). A link is listed as what it leads to.

    If ``refresh``, a day is listed anew at the service, even if it is known.
    """

    path: str
    refresh: bool = False


class Find(msgspec.Struct, tag_field="op", tag="find"):
    """List what is below a directory, or a file itself; each directory before what it contains.

    ``maxdepth`` 1 is the directory itself (None: no bound). Directories are entries of the answer
    only ``withdirs``; the one that was asked for is not. Links are not followed. What ``ls`` does
    not show, such as the views in the root, is not searched.
    """

    path: str
    maxdepth: int | None = None
    withdirs: bool = False


class Open(msgspec.Struct, tag_field="op", tag="open"):
    """Open a file (EISDIR if it is a directory, ENODATA if it is archived)."""

    path: str


class Read(msgspec.Struct, tag_field="op", tag="read"):
    """Read ``min(size, size of the file - offset)`` bytes of an open file, or get an error.

    ESTALE if the content has gone or changed since it was opened, EBADF for an unknown handle.
    """

    handle: int
    offset: int
    size: int


class Close(msgspec.Struct, tag_field="op", tag="close"):
    """Close a file; a handle that is not open is no error."""

    handle: int


class Cat(msgspec.Struct, tag_field="op", tag="cat"):
    """Read parts of many files: path, start, stop; negative and None as in a slice of the bytes."""

    items: list[tuple[str, int | None, int | None]]


class Record(msgspec.Struct, tag_field="op", tag="record"):
    """Ask for the record of an object: its JSON, as the service sent it."""

    path: str


class Attribute(msgspec.Struct, tag_field="op", tag="attribute"):
    """Ask for an extended attribute, by its name in a mount (ENODATA if there is none)."""

    path: str
    name: str


class Status(msgspec.Struct, tag_field="op", tag="status"):
    """Ask for the status document: JSON."""


class Leave(msgspec.Struct, tag_field="op", tag="leave"):
    """Ask a daemon that was started on demand to end; EBUSY if it was not, or if it is in use."""


Request = Hello | Info | Ls | Find | Open | Read | Close | Cat | Record | Attribute | Status | Leave


# answers


class Welcome(msgspec.Struct, tag_field="is", tag="welcome"):
    """Who is there: the versions of the protocol and of phonofs, the profile, the process.

    ``on_demand``: it was started by a client, and ends when it was idle for a while.
    """

    protocol: int
    version: str = ""
    profile: str = ""
    pid: int = 0
    on_demand: bool = False

    def refusal(self, profile: str) -> str:
        """Return why a client of a profile must not use this daemon, '' if it may."""
        if self.profile == profile:
            return ""
        return (
            f"the daemon in the cache folder of profile {profile} serves profile {self.profile}: "
            "set cache_dir to another folder for one of them"
        )


class About(msgspec.Struct, tag_field="is", tag="about"):
    """One entry."""

    entry: Entry


class Entries(msgspec.Struct, tag_field="is", tag="entries"):
    """Some entries."""

    entries: list[Entry]


class Opened(msgspec.Struct, tag_field="is", tag="opened"):
    """An open file. Its size and fingerprint are those of the content that will be read."""

    handle: int
    size: int
    fingerprint: str


class Data(msgspec.Struct, tag_field="is", tag="data"):
    """Bytes: ``body`` of them follow. The last message of a read says that it is the last."""

    body: int
    last: bool = True


class End(msgspec.Struct, tag_field="is", tag="end"):
    """Everything that was asked for has been sent, or done."""


class Error(msgspec.Struct, tag_field="is", tag="error"):
    """What was asked for failed: the name of an errno, as ``ENOENT``, and a sentence."""

    errno: str
    message: str


Answer = Welcome | About | Entries | Opened | Data | End | Error

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


class NotUnderstood(ValueError):
    """What was received is no message of this protocol."""


def pack(message: Request | Answer) -> bytes:
    """Return a message as it is sent, without its body."""
    head = _encoder.encode(message)
    return LENGTH.pack(len(head)) + head


def head_length(received: bytes | bytearray | memoryview) -> int:
    """Return the length of a head from the LENGTH.size bytes ahead of it. Raises NotUnderstood."""
    length: int = LENGTH.unpack(received)[0]
    if not 0 < length <= HEAD_MAX:
        raise NotUnderstood(f"a message cannot have a head of {length} bytes")
    return length


def request_of(head: bytes | bytearray | memoryview) -> Request:
    """Return the request in a head. Raises NotUnderstood."""
    try:
        return _requests.decode(head)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise NotUnderstood(f"no request: {error}") from None


def answer_of(head: bytes | bytearray | memoryview) -> Answer:
    """Return the answer in a head; its body, if it has one, follows. Raises NotUnderstood."""
    try:
        answer = _answers.decode(head)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise NotUnderstood(f"no answer: {error}") from None
    if isinstance(answer, Data) and not 0 <= answer.body <= BODY_MAX:
        raise NotUnderstood(f"a message cannot have a body of {answer.body} bytes")
    return answer
