"""``phonofs umount``: takes a mount down, also a dead one, and waits for its process."""

import os
import select

import click

from phonofs.cli.mounts import mounted_at
from phonofs.cli.probe import server_pid
from phonofs.errors import MountFailed
from phonofs.fuse.mountpoint import unmount

WAIT_S = 5.0
"""A clean stop takes no longer; see the contract of ``umount``."""


@click.command("umount")
@click.argument("mountpoint")
@click.option("-z", "--lazy", is_flag=True, help="Detach now, clean up when nobody uses it.")
def command(mountpoint: str, lazy: bool) -> int:
    """Unmount, also a mount whose process has died."""
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
    unmount(mountpoint, lazy=lazy)
    if pid is not None:
        _wait_for_end(pid)


def _wait_for_end(pid: int) -> None:
    """Until the process is gone, or ``WAIT_S``; that it takes longer is no failure."""
    try:
        process = os.pidfd_open(pid)
    except OSError:  # gone already
        return
    try:
        poll = select.poll()
        poll.register(process, select.POLLIN)  # readable when it ends: pidfd_open(2)
        poll.poll(WAIT_S * 1000)
    finally:
        os.close(process)
