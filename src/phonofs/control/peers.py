"""Tells which user is the peer of a unix socket, and what permission bits allow that user.

Used by ``control/server.py`` (which user asks) and ``app.py`` (whether that user may). Ignores
access control lists: if a list allows more than the bits, the answer is still no.
"""

import os
import socket
import stat
import struct
from pathlib import Path
from typing import NamedTuple

import trio

SO_PEERGROUPS = 59  # asm-generic/socket.h; Python has no name for it
GROUPS_MAX = 256  # Python's getsockopt takes 1,024 bytes; with more groups, none counts


class Peer(NamedTuple):
    """The user of the process that connected, as the kernel reports it (unix(7)).

    pid  of that process; 0 if it is not in our pid namespace
    """

    uid: int
    groups: frozenset[int]
    pid: int = 0

    @property
    def is_owner(self) -> bool:
        """Whether the peer is the user that this process runs as, or root."""
        return self.uid in (os.getuid(), 0)


def peer_of(sock: trio.socket.SocketType) -> Peer:
    """Return the peer of a connected unix socket, with its group and supplementary groups."""
    said = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, gid = struct.unpack("3i", said)
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * GROUPS_MAX)
    except OSError:
        raw = b""
    return Peer(uid, frozenset({gid, *struct.unpack(f"{len(raw) // 4}I", raw)}), pid)


def may(peer: Peer, wanted: int, mode: int, uid: int, gid: int) -> bool:
    """Return whether permission bits grant ``wanted`` (``rwx``: 4, 2, 1) to a peer."""
    if peer.uid == 0:
        return True
    if peer.uid == uid:
        return mode >> 6 & wanted == wanted
    if gid in peer.groups:
        return mode >> 3 & wanted == wanted
    return mode & wanted == wanted


def may_reach(peer: Peer, path: Path) -> bool:
    """Return whether a peer may search all directories above ``path``; never touches ``path``."""
    for folder in path.parents:
        try:
            found = os.stat(folder)
        except OSError:
            return False
        if not may(peer, 1, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid):
            return False
    return True


def may_read(peer: Peer, mountpoint: str, umask: int, uid: int, gid: int) -> bool:
    """Return whether a peer may read the files of a mount.

    Checks the mode of the files and the directories above the mount point. A mount that was
    handed over may not know its path (``/dev/fd/N``); then only the mode is checked. May touch
    the disk.
    """
    readable = may(peer, 4, 0o444 & ~umask, uid, gid)
    listable = may(peer, 5, 0o555 & ~umask, uid, gid)
    known = not mountpoint.startswith("/dev/fd/")
    return readable and listable and (not known or may_reach(peer, Path(mountpoint)))
