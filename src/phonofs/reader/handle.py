"""An open file as the reader sees it."""

from typing import TYPE_CHECKING

from phonofs.errors import Corrupt
from phonofs.ranges import Ranges
from phonofs.reader.window import Window

if TYPE_CHECKING:
    from phonofs.reader.open_object import OpenObject


class Handle:
    """One open of one file; made by ``Reader.open``, ended by ``Reader.release``.

    window   how it reads
    kick_at  read-ahead is planned again once ``window.next`` has come this far
    starved  read-ahead wanted more parts than there were lanes
    seen     what it was given while the content was not known to be right
    wrong    set where bytes it was given turned out to be false: it gets no more
    finished whether it was read from its first byte to its last
    pid      the process that opened it, 0 where that is not known
    """

    __slots__ = (
        "finished", "ino", "kick_at", "pid", "seen", "starved", "stream", "window", "wrong",
    )  # fmt: skip

    def __init__(self, stream: "OpenObject", ino: int, pid: int = 0) -> None:
        self.stream = stream
        self.ino = ino
        self.pid = pid
        self.window = Window()
        self.kick_at = 0
        self.starved = False
        self.finished = False
        self.seen = Ranges()
        self.wrong: Corrupt | None = None

    @property
    def doubtful(self) -> bool:
        """Whether nothing proves the length that is known now, and something speaks against it."""
        return self.stream.length.unknown or self.stream.length.doubtful

    @property
    def told(self) -> int:
        """The length that the file system was told last: the record's, or a proved one."""
        return self.stream.told

    @property
    def size(self) -> int:
        """The length of the file in bytes, as far as it is known now."""
        return self.stream.size
