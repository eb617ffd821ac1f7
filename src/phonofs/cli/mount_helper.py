"""``mount.phonofs``: mount(8) runs it for ``mount -t phonofs`` and lines of fstab.

``mount.phonofs PROFILE MOUNTPOINT [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPT,…]``, as documented in
mount(8) under "External helpers". mount.fuse3(8) runs ``phonofs PROFILE MOUNTPOINT -o …``
likewise; the mount point is ``/dev/fd/N`` if it has opened the device for us.
"""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import click

from phonofs.cli import run
from phonofs.cli.mount import start
from phonofs.config import BY_NAME, DEFAULT_PROFILE, Settings, as_texts
from phonofs.config.load import load, split_options
from phonofs.control.client import command as ask
from phonofs.control.client import status_of
from phonofs.errors import MountFailed, PhonofsError, UsageError
from phonofs.fuse.mountinfo import SOURCE, absolute, device_fd, mounted_at

IGNORED = frozenset({
    # options of mount(8) and fstab for any file system; a phonofs mount is ro,nosuid,nodev,noexec
    "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync",
    "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime",
    "nostrictatime", "lazytime", "nolazytime", "iversion", "noiversion", "mand", "nomand",
    "silent", "loud", "defaults", "remount", "symfollow", "nosymfollow",
    # options that only init and mount(8) use
    "auto", "noauto", "nofail", "fail", "_netdev", "_rnetdev", "user", "nouser", "users", "nousers",
    "owner", "noowner", "group", "nogroup", "comment", "helper", "uhelper",
    # options that the kernel writes to /proc/mounts (fs/fuse/inode.c), from where users copy lines
    "user_id", "group_id", "rootmode", "fd", "blksize", "max_read", "seclabel",
    # options that FUSE always sets, or that mount.fuse3(8) has handled
    "default_permissions", "drop_privileges", "setuid", "fsname", "nonempty", "blkdev",
})  # fmt: skip
"""Mount options that are accepted and ignored, as sshfs and rclone do."""

FOREGROUND = "foreground"
"""An option of ours: stay in the foreground, for a systemd unit that runs mount.fuse3(8)."""

_IGNORED_PREFIX = re.compile(r"(x-|X-|context|fscontext|defcontext|rootcontext|verity\.)")


@click.command("mount.phonofs", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("profile")
@click.argument("mountpoint")
@click.option("-o", "options", metavar="OPT,…", multiple=True, help="Mount options.")
@click.option("-s", "sloppy", is_flag=True, help="Ignore unknown options.")
@click.option("-f", "fake", is_flag=True, help="Check everything, but mount nothing.")
@click.option("-n", "_no_mtab", is_flag=True, help="Accepted and ignored.")
@click.option("-v", "verbose", is_flag=True, help="Print what is mounted where.")
@click.option("-N", "_namespace", metavar="NS", help="Accepted and ignored.")
@click.option("-t", "_type", metavar="TYPE", help="Accepted and ignored.")
def command(
    profile: str,
    mountpoint: str,
    options: Sequence[str],
    sloppy: bool,
    fake: bool,
    verbose: bool,
    **_ignored: object,
) -> int:
    """Mount PROFILE on MOUNTPOINT for mount(8).

    If it is already mounted there, nothing is done: mount -a may run again, and so may
    mount -o remount, whose changed options take effect at the next mount.
    """
    profile = source_profile(profile)
    given = flattened(options)
    again = partial(load, profile, [ours(options, sloppy=sloppy)])
    settings = again()
    if device_fd(mountpoint) is not None:
        check_handed_over(given)
    if fake:
        return 0
    if is_mounted(profile, mountpoint):
        if "remount" in given:
            say_what_waits(mountpoint, given, settings)
        return 0
    if "remount" in given:
        raise MountFailed(f"{mountpoint} cannot be remounted: {profile} is not mounted there")
    status = start(settings, mountpoint, again=again, foreground=FOREGROUND in given)
    if verbose and status == 0:
        click.echo(f"phonofs: {profile} mounted on {mountpoint}")
    return status


def source_profile(source: str) -> str:
    """Return the profile of a mount source, such as ``work`` or ``phonofs#work``.

    ``none`` is the default profile. If the working directory contains a directory called like
    the source, mount(8) passes its path, so only the last part counts.
    """
    name = source.removeprefix(SOURCE).rpartition("/")[2]
    return DEFAULT_PROFILE if name in ("", "none", "phonofs") else name


def is_mounted(profile: str, mountpoint: str) -> bool:
    """Return whether this profile is mounted there. Raises the errors of ``status_of``."""
    if device_fd(mountpoint) is not None:
        return False
    mounted = mounted_at(mountpoint)
    if mounted is None or not mounted.is_phonofs:
        return False
    return status_of(mounted.point).get("profile") == profile


def say_what_waits(mountpoint: str, given: Mapping[str, object], settings: Settings) -> None:
    """Print which of the given phonofs options differ from those of the running mount."""
    named = [name for name in given if name in BY_NAME]
    if not named:
        return
    try:
        running = ask(absolute(mountpoint), {"command": "options"})
        wanted = as_texts(settings)
        named = [name for name in named if running.get(name) != wanted.get(name)]
    except PhonofsError:  # it accepts no commands, so the options cannot be compared
        pass
    if named:
        click.echo(
            f"phonofs: {', '.join(named)}: takes effect at the next mount of {mountpoint}", err=True
        )


def flattened(options: Iterable[str]) -> dict[str, object]:
    """Return the options of all ``-o`` texts; for each name, the last one counts."""
    given: dict[str, object] = {}
    for text in options:
        given |= split_options(text)
    return given


def check_handed_over(options: Mapping[str, object]) -> None:
    """Raise UsageError if mount.fuse3(8) has mounted without the kernel's permission checks.

    The process that mounts sets them, and that was not us. Without them, any user may read every
    file, whatever its mode. Without ``allow_other``, the kernel lets no other user in anyway.
    """
    if "allow_other" in options and "default_permissions" not in options:
        raise UsageError("allow_other needs default_permissions, too: add it to the options")


def ours(options: Iterable[str], *, sloppy: bool) -> str:
    """Return the phonofs options as one ``-o`` text, without the other options of mount(8).

    With ``sloppy``, unknown options are left out too; otherwise they stay and are rejected later.
    """
    given = flattened(options)
    return ",".join(_spelled(given, name) for name in given if _stays(name, sloppy=sloppy))


def _stays(name: str, *, sloppy: bool) -> bool:
    if name in BY_NAME:
        return True
    return not (sloppy or name in IGNORED or name == FOREGROUND or _IGNORED_PREFIX.match(name))


def _spelled(options: Mapping[str, object], name: str) -> str:
    value = options[name]
    return name if value is True else f"{name}=" + re.sub(r"([,\\])", r"\\\1", str(value))


def main() -> None:
    """Run the program ``mount.phonofs``."""
    arguments = sys.argv[1:]
    # mount(8) puts flags after the operands and may join them (-sv); click accepts both.
    sys.exit(run(command, "mount.phonofs", arguments))
