"""The commands: each has a module, which parses arguments, calls a lower layer and prints.

The module of a command is imported only if the command is run, so that ``--help`` and ``umount``
start fast.
"""

import importlib
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click

from phonofs import __version__
from phonofs.cli.output import OutputFailed, drop_output, name_failures
from phonofs.cli.report import EXIT_INTERRUPTED, EXIT_USAGE, report
from phonofs.config import nearest
from phonofs.errors import UsageError
from phonofs.process.daemonize import open_standard_streams, reset_signals


@dataclass(frozen=True, slots=True)
class Command:
    """The module of a command, and its help in one line."""

    module: str
    help: str
    hidden: bool = False


COMMANDS: Mapping[str, Command] = {
    "mount": Command("mount", "Mount an account as a read-only folder."),
    "serve": Command("serve", "Serve an account to your own programs, without a mount."),
    "umount": Command("umount", "Unmount, even if the serving process has died."),
    "demo": Command("demo", "Mount a made-up account: no key, no network."),
    "doctor": Command("doctor", "Check everything that a mount needs; say how to fix it."),
    "login": Command("login", "Ask for key and secret, check them, and store them."),
    "logout": Command("logout", "Delete the key and the secret that login stored."),
    "status": Command("status", "Show the state of a running mount, or of a daemon without one."),
    "find": Command("find", "Print the paths of the objects that match all of the options."),
    "manifest": Command("manifest", "Print a line for each object of days, months or files."),
    "export": Command("export", "Copy chosen objects into a folder, checked, with lists of them."),
    "index": Command("index", "Make the whole account known, so that searches need no request."),
    "fetch": Command("fetch", "Download files or whole days into the cache."),
    "restore": Command("restore", "Request the restore of archived objects."),
    "cache": Command("cache", "Show, check or empty the cache of a profile."),
    "journal": Command("journal", "Show or check the access journal: who opened what, when."),
    "watch": Command(
        "watch", "Print a line of JSON for each object that appears, changes or disappears."
    ),
    "setup-mount-helper": Command(
        "setup_mount_helper", "Make `mount -t phonofs` and fstab work (as root)."
    ),
    "mount-helper": Command("mount_helper", "Mount, as mount(8) runs it.", hidden=True),
}


class LazyGroup(click.Group):
    """A group that imports the module of a command only if the command is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands that are not hidden, in the order of the table."""
        return [name for name, command in COMMANDS.items() if not command.hidden]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command ``phonofs.cli.<module>.command``; None if there is none."""
        found = COMMANDS.get(cmd_name)
        if found is None:
            return None
        module = importlib.import_module(f"{__name__}.{found.module}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve as click does, but raise UsageError with the nearest name for an unknown one."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            hint = nearest(args[0], self.list_commands(ctx))
            raise UsageError(f"there is no command {args[0]!r}{hint or '; see `phonofs --help`'}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list for ``--help`` from the table, without importing the commands."""
        with formatter.section("Commands"):
            names = self.list_commands(ctx)
            formatter.write_dl([(name, COMMANDS[name].help) for name in names])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", message="phonofs %(version)s")
def group() -> None:
    """The recordings of an 8x8 account as a read-only folder organised by date."""


def main() -> None:
    """Run the program ``phonofs``."""
    arguments = sys.argv[1:]
    # A command reports an error in one sentence; a mount sets its log level itself.
    logging.getLogger("phonofs").setLevel(logging.CRITICAL)
    if _called_by_mount(arguments):
        arguments = ["mount-helper", *arguments]
    sys.exit(run(group, "phonofs", arguments))


def _called_by_mount(arguments: Sequence[str]) -> bool:
    """Return whether mount.fuse3(8) started us: ``phonofs PROFILE /MOUNTPOINT -o …``, no command.

    It always passes options, at least ``dev,suid`` (mount.fuse.c of libfuse). No command takes a
    ``/dev/fd/N`` path, so with one, the profile may have the name of a command.
    """
    match arguments:
        case [first, path, "-o", _, *_] if path.startswith("/dev/fd/"):
            return not first.startswith("-")
        case [first, path, "-o", _, *_] if path.startswith("/"):
            return first not in COMMANDS and not first.startswith("-")
    return False


def run(command: click.Command, name: str, arguments: Sequence[str]) -> int:
    """Run a command and return its exit status; print an error as one sentence on stderr."""
    open_standard_streams()
    name_failures()
    reset_signals()
    try:
        status = command.main(list(arguments), prog_name=name, standalone_mode=False)
        sys.stdout.flush()  # or what is left would fail unseen, when Python ends
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        return EXIT_USAGE
    except click.ClickException as error:
        return report(UsageError(_sentence(error)))
    except (KeyboardInterrupt, click.Abort):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        drop_output()
        return EXIT_USAGE
    except OutputFailed as error:
        drop_output()
        return report(error)
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        return report(error)
    return status if isinstance(status, int) else 0


def _sentence(error: click.ClickException) -> str:
    """Return click's message as one line that ends with a pointer to the help."""
    said = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "phonofs"
    return f"{said[:1].lower()}{said[1:]}; see `{path} --help`"
