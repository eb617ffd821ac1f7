"""``phonofs export``: copies chosen objects into a folder, and says what is missing."""

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import click
import msgspec

from phonofs import __version__
from phonofs.cli.export_account import Account, opened, recorded
from phonofs.cli.named_objects import mount_named, named, path_below
from phonofs.cli.report import EXIT_IN_PART, EXIT_INTERRUPTED
from phonofs.cli.search_options import search_options
from phonofs.errors import PhonofsError, Unavailable, UsageError
from phonofs.export.copier import Display, NoDisplay
from phonofs.export.destination import Destination
from phonofs.export.destination import opened as open_destination
from phonofs.export.ledger import Ledger, now_text
from phonofs.export.lists import Choice, Description, Lists, read_description, write_description
from phonofs.export.run import Rules, Run
from phonofs.export.workers import workers
from phonofs.fuse.mountinfo import mount_of
from phonofs.search.answer import Found
from phonofs.search.condition import Condition
from phonofs.search.options import condition_of
from phonofs.units import format_count, format_size, printable

NOTHING = Condition()


@click.command("export")
@click.argument("dest", metavar="DEST")
@click.argument("paths", nargs=-1, metavar="[PATH]…")
@search_options
@click.option("--update", is_flag=True, help="Replace what changed, and mark what was withdrawn.")
@click.option("--prune", is_flag=True, help="With --update, remove what was withdrawn.")
@click.option("--no-texts", is_flag=True, help="Copy no texts and subtitles.")
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1, 64),
    default=16,
    metavar="N",
    help="Files to copy at the same time (16).",
)
@click.option("--mount", metavar="PATH", help="Export from this mount.")
@click.option("--profile", metavar="NAME", help="Export the account of this profile.")
@click.option("-o", "options", metavar="OPT,…", multiple=True, help="As with mount.")
def command(
    dest: str,
    paths: Sequence[str],
    update: bool,
    prune: bool,
    no_texts: bool,
    jobs: int,
    mount: str | None,
    profile: str | None,
    options: Sequence[str],
    **asked: Any,
) -> int:
    """Copy chosen objects into a folder, checked, with lists of them.

    PATH is as with manifest, the options as with find; all of it must hold. DEST must be empty or
    an export. Each file is compared with the checksum of its record; texts lie beside. The files
    are listed in manifest.csv, manifest.jsonl and SHA256SUMS, what could not be copied in
    missing.csv, and index.html plays them.

    What is there is not copied again: after Ctrl-C, or where something was missing, the next run
    goes on. Without paths and options, that is about the objects chosen before. A file whose
    content has changed is replaced with --update only, which also marks as withdrawn what the
    service does not have any more. Without a mount, the command reads from the daemon of the
    profile or, if there is none, from the service itself. If something is missing, the exit status
    is 4.
    """
    if prune and not update:
        raise UsageError("--prune removes what --update finds withdrawn: give both")
    condition = condition_of(**asked)
    _refuse_mount(dest)
    try:
        with open_destination(dest) as destination:
            before = read_description(destination)
            if mount is None and profile is None:
                mount = mount_named(paths)
            with opened(mount, profile, options, before) as account:
                _check_profile(dest, account.profile, before)
                chosen = _choice(dest, account, paths, condition, before, texts=not no_texts)
                rules = Rules(update, prune, chosen.texts, account.lenient)
                return _Export(destination, account, chosen, rules, before).run(jobs)
    except ConnectionError:
        raise Unavailable("the mount or daemon has ended; the next run goes on from here") from None
    except OSError as error:
        raise PhonofsError(
            f"{dest} cannot be written to: {error.strerror}; what is there stays, and the next run "
            "goes on from here"
        ) from None
    except KeyboardInterrupt:
        click.echo("\nstopped; the next run goes on from here", err=True)
        # Do not return: Python would wait for threads that wait for the service.
        os._exit(EXIT_INTERRUPTED)


def _refuse_mount(dest: str) -> None:
    """Raise UsageError if the destination lies in a phonofs mount."""
    try:
        point = mount_of(dest).point
    except UsageError:
        return
    raise UsageError(f"{dest} is in {point}, which is read-only: choose another folder")


def _check_profile(dest: str, profile: str, before: Description | None) -> None:
    if before is not None and before.profile != profile:
        raise UsageError(
            f"{dest} is an export of profile {before.profile}, not {profile}: choose another folder"
        )


def _choice(
    dest: str,
    account: Account,
    paths: Sequence[str],
    condition: Condition,
    before: Description | None,
    *,
    texts: bool,
) -> Choice:
    """Return what is chosen, by an earlier run if nothing is said. Raises UsageError."""
    said = bool(paths) or condition != NOTHING
    if before is not None and not said:
        return msgspec.structs.replace(before.chosen, texts=before.chosen.texts and texts)
    source = account.source()
    below = [path_below(source, path) for path in paths]
    chosen = Choice(below if all(below) else [], condition, texts)  # '' is all of a mount
    if before is not None:
        same = sorted(chosen.paths) == sorted(before.chosen.paths)
        if not same or chosen.condition != before.chosen.condition:
            raise UsageError(
                f"{dest} is an export of something else: choose another folder, or give no paths "
                "and options, and it is gone on with"
            )
    return chosen


class _Export:
    """One run, from what it begins with to its lists."""

    def __init__(
        self,
        destination: Destination,
        account: Account,
        chosen: Choice,
        rules: Rules,
        before: Description | None,
    ) -> None:
        self._destination = destination
        self._account = account
        self._chosen = chosen
        self._rules = rules
        self._source = account.source()
        self._description = Description(
            version=__version__,
            profile=account.profile,
            chosen=chosen,
            started=now_text(),
            customers=before.customers if before is not None else [],
            pages=before.pages if before is not None else [],
        )

    def run(self, jobs: int) -> int:
        """Export; return the exit status. Raises PhonofsError, OSError of the destination."""
        write_description(self._destination, self._description)
        ledger = Ledger(self._destination)
        try:
            with recorded(self._source, self._chosen) as counts:
                run = self._copy(ledger, jobs, counts)
                return self._report(run, self._finish(run, ledger))
        finally:
            ledger.close()

    def _copy(self, ledger: Ledger, jobs: int, counts: dict[str, int]) -> Run:
        """Copy what is chosen, and count it."""
        with workers(jobs) as threads, _display() as bar:
            contents = self._account.contents
            run = Run(self._destination, ledger, contents, threads, self._rules, bar)
            try:
                run.copy(self._found(), self._again, self._description.customers)
                run.end([*self._account.stale, *self._source.answer.missing])
            except (KeyboardInterrupt, OSError):
                threads.stop.set()
                with suppress(OSError):
                    run.flush()
                raise
            finally:
                copied, missing = run.counts["copied"], len(run.missing)
                counts.update(objects=len(run.seen), copied=copied, missing=missing)
        return run

    def _found(self) -> Iterator[Found]:
        paths = [self._source.top + path for path in self._chosen.paths]
        found = named(self._source, paths, self._chosen.condition, command="export")
        return (result for _, result in found)

    def _again(self, paths: Sequence[str]) -> Iterator[Found]:
        """Look for paths another time; that one is gone by now is said of it elsewhere."""
        for some in self._account.source().files(paths):
            yield from some

    def _finish(self, run: Run, ledger: Ledger) -> Description:
        """Write the lists and the description, and end the export."""
        lists = Lists(self._destination, ledger, self._source.zone, self._account.profile)
        description = msgspec.structs.replace(
            self._description,
            timezone=str(self._source.zone),
            finished=now_text(),
            customers=sorted({*self._description.customers, *run.customers}),
        )
        description = lists.write(run.missing, description)
        write_description(self._destination, description)
        self._destination.finish()
        return description

    def _report(self, run: Run, description: Description) -> int:
        """Say what was done and what is missing; return the exit status."""
        if looked := self._source.answer.looked_at():
            click.echo(printable(looked), err=True)
        for each in run.missing:
            if each.key is None:
                click.echo(f"phonofs: {printable(each.detail)}", err=True)
        click.echo(_summary(run, description))
        return EXIT_IN_PART if run.missing else 0


def _display() -> AbstractContextManager[Display]:
    """Return what shows how far the export is, if somebody can see it."""
    if not sys.stderr.isatty():
        return nullcontext(NoDisplay())
    from phonofs.cli.progress_bar import ProgressBar  # rich takes 40 ms

    return ProgressBar()


def _summary(run: Run, description: Description) -> str:
    """Return in one line what is there, what was done, and what is missing."""
    missing = Counter(each.kind for each in run.missing)
    chosen = len(run.seen)
    there = chosen - missing["object"]
    said = [f"{there:,} of {format_count(chosen, 'object')}"]
    if description.texts:
        said[0] += f", {format_count(description.texts, 'text')}"
    said[0] += f" ({format_size(description.bytes)})"
    counts = [f"{count:,} {what}" for what, count in run.counts.items() if count]
    reasons = Counter(str(each.reason) for each in run.missing if each.kind != "time")
    lacking = [f"{count:,} {reason}" for reason, count in reasons.most_common()]
    if counts:
        said.append(", ".join(counts))
    if run.missing:
        said.append(f"{', '.join(lacking) or 'not all was listed'}: see missing.csv")
    return f"export: {'; '.join(said)}"
