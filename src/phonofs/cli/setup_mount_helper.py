"""``phonofs setup-mount-helper``: links mount.phonofs into the directory that mount(8) searches."""

import os
import shutil
import sys
from pathlib import Path

import click

from phonofs.errors import UsageError

PROGRAM = "mount.phonofs"
FOLDER = Path("/sbin")


@click.command("setup-mount-helper")
def command() -> int:
    """Make `mount -t phonofs` and fstab work (as root).

    Links mount.phonofs into /sbin, the only folder that mount(8) searches.
    """
    link = FOLDER / PROGRAM
    click.echo(f"{link} -> {set_up(link, helper())}")
    return 0


def helper() -> Path:
    """Return the path of the mount.phonofs of this installation."""
    beside = Path(sys.executable).parent / PROGRAM
    found = str(beside) if beside.exists() else shutil.which(PROGRAM)
    if found is None:
        raise UsageError(f"{PROGRAM} does not exist: install phonofs with pip or pipx")
    return Path(found).absolute()


def set_up(link: Path, target: Path) -> Path:
    """Make or replace the link; return its target. Raises UsageError if another file is there."""
    if link.exists() and not link.is_symlink():
        if link.samefile(target):
            return target
        raise UsageError(f"{link} exists and is not a link; remove it first")
    new = link.with_name(f".{link.name}.{os.getpid()}")
    try:
        new.symlink_to(target)
        new.replace(link)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise UsageError(f"{link} cannot be made ({error.strerror}): run it as root") from None
    return target
