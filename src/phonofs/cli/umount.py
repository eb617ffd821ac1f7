"""``phonofs umount``: unmounts, even if the process has died, and waits for the process."""

import os
import select
from collections.abc import Sequence

import click

from phonofs.cli.holders import Process, copies_of, users_of
from phonofs.control.client import server_pid
from phonofs.errors import MountFailed
from phonofs.fuse.mountinfo import Mounted, mounted_at, mounts
from phonofs.fuse.unmount import unmount

WAIT_S = 5.0
"""A clean stop takes at most this long; see the contract of ``umount``."""
NAMED = 5
"""The most processes to name; nobody ends more of them by hand."""


@click.command("umount")
@click.argument("mountpoint")
@click.option("-z", "--lazy", is_flag=True, help="Detach now; clean up once it is unused.")
def command(mountpoint: str, lazy: bool) -> int:
    """Unmount, even if the serving process has died.

    If the mount is in use, or if a copy of it stays elsewhere, the processes are named.
    """
    take_down(mountpoint, lazy=lazy)
    return 0


def take_down(mountpoint: str, *, lazy: bool = False) -> None:
    """Unmount and wait until the serving process has ended. Raises MountFailed."""
    mounted = mounted_at(mountpoint)
    if mounted is None:
        raise MountFailed(f"{mountpoint} is not mounted")
    if not mounted.is_phonofs:
        raise MountFailed(f"{mountpoint} is not a phonofs mount but {mounted.kind}")
    pid = server_pid(mounted.point)
    users = users_of(mounted.point, mounted.device) if lazy else []  # later their paths are gone
    try:
        unmount(mounted.point, lazy=lazy)
    except MountFailed as error:
        raise MountFailed(_busy(mounted, error)) from None
    if pid is not None:
        _wait_for_end(mounted, pid, users)


def _busy(mounted: Mounted, error: MountFailed) -> str:
    """Return why it could not be unmounted; if it is busy, name the processes that use it."""
    if "busy" not in str(error):
        return str(error)
    users = users_of(mounted.point, mounted.device)
    below = [each.point for each in mounts() if each.point.startswith(f"{mounted.point}/")]
    who = (
        _listed(users)
        if users
        else f"what is mounted on {below[0]}"
        if below
        else "a process that only root can see"
    )
    return (
        f"{mounted.point} could not be unmounted: it is in use by {who}; "
        f"stop that, or detach the mount with `phonofs umount --lazy {mounted.point}`"
    )


def _listed(processes: Sequence[Process]) -> str:
    named = ", ".join(map(str, processes[:NAMED]))
    more = len(processes) - NAMED
    return f"{named} and {more} more" if more > 0 else named


def _wait_for_end(mounted: Mounted, pid: int, users: Sequence[Process]) -> None:
    """Wait until the process has ended, at most ``WAIT_S``; print a note if it has not."""
    try:
        process = os.pidfd_open(pid)
    except OSError:  # it has already ended
        return
    try:
        poll = select.poll()
        poll.register(process, select.POLLIN)  # readable when it ends: pidfd_open(2)
        copies = copies_of(mounted.device)
        if poll.poll(0 if copies or users else WAIT_S * 1000):
            return
    finally:
        os.close(process)
    _say_it_lives_on(mounted, pid, copies, users)


def _say_it_lives_on(
    mounted: Mounted, pid: int, copies: Sequence[Process], users: Sequence[Process]
) -> None:
    if copies:
        why = f"a copy of it is still in the mount namespace of {_listed(copies)}"
    elif users:
        why = f"it is still in use by {_listed(users)}"
    else:
        why = "it has not ended yet"
    click.echo(
        f"phonofs: {mounted.point} is unmounted, but process {pid} still serves it and keeps "
        f"its cache locked: {why}",
        err=True,
    )
