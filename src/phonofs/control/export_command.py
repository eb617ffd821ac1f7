"""The command ``export`` of the control socket: an export begins, or has ended.

The export itself reads like any program; this has both recorded in the journal. What the second
line counts is what the command says.
"""

from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Literal

import msgspec

from phonofs.access import Access, Opener
from phonofs.control.peers import Peer
from phonofs.control.search_commands import converted
from phonofs.control.server import Event, LongCommand
from phonofs.journal.lines import Result
from phonofs.search.condition import Condition

_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]


class _Export(msgspec.Struct):
    """``of`` is the number of the line with which an export began that ends now, 0 if it begins."""

    condition: Condition = Condition()
    paths: _Count = 0
    of: _Count = 0
    result: Literal["ended", "stopped"] = "ended"
    objects: _Count = 0
    copied: _Count = 0
    missing: _Count = 0


class ExportCommand:
    """Answers the command. Owns no state."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def commands(self) -> dict[str, LongCommand]:
        """Return the command by its name."""
        return {"export": LongCommand(self.export, for_readers=True)}

    async def export(self, asked: Mapping[str, object], peer: Peer) -> AsyncGenerator[Event, None]:
        """Answer with the number of the line, 0 if none was made. Raises UsageError, JournalError.

        The line of an end is written within the option ``journal_sync``.
        """
        request = converted(asked, _Export)
        opener = Opener(peer.uid, peer.pid)
        if not request.of:
            words = request.condition.words()
            yield {"line": await self._access.export_begins(opener, words, request.paths)}
            return
        counts = request.objects, request.copied, request.missing
        self._access.export_ends(opener, request.of, Result(request.result), *counts)
        yield {"line": 0}
