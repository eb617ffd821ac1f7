"""``phonofs journal``: shows or checks the access journal of a profile."""

import os
import pwd
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import click
from msgspec import UNSET

from phonofs.attributes import PREFIX
from phonofs.cli.search_source import source_of
from phonofs.config import DEFAULT_PROFILE
from phonofs.config.load import load
from phonofs.errors import UsageError
from phonofs.journal.folder import read_search_key
from phonofs.journal.lines import Event, Line, keyed_hash, parse
from phonofs.journal.verification import Report, lines_of, verify
from phonofs.search.condition import Condition
from phonofs.search.facets import digits_of
from phonofs.search.options import first_day
from phonofs.units import format_count, printable

EXIT_BROKEN = 1


@click.command("journal")
@click.argument("action", type=click.Choice(["show", "verify"]))
@click.argument("profile", default=DEFAULT_PROFILE)
@click.option("--object", "wanted", metavar="PATH", help="Show this file's lines; or give its id.")
@click.option("--user", metavar="U", help="Show lines of this user, by name or number.")
@click.option("--word", metavar="W", help="Show searches for this name, number, id or KEY=VALUE.")
@click.option("--key", metavar="NAME", help="Show lines of this key of S3 clients.")
@click.option("--since", metavar="D", help="Show lines since 2026-11-17, 2026-11 or 2026 (UTC).")
@click.option("--names", is_flag=True, help="Show the paths of objects as they are known now.")
@click.option("--mount", metavar="PATH", help="Take these paths from this mount.")
@click.option("--hash", "kept", metavar="H", help="Verify that a line has this hash, kept before.")
@click.option("-o", "options", metavar="OPT,…", multiple=True, help="Options, as with mount.")
def command(
    action: str,
    profile: str,
    wanted: str | None,
    user: str | None,
    word: str | None,
    key: str | None,
    since: str | None,
    names: bool,
    mount: str | None,
    kept: str | None,
    options: Sequence[str],
) -> int:
    """Show or check the access journal: who opened what, when.

    'show' prints a line for each open, search and export, for cached content that was removed since
    the service withdrew it, and for each start, stop and gap of the journal. 'verify' checks the
    chain of hashes; if a line was changed, moved or removed, it says so, and the exit status is 1.
    Months that were moved away are not missed.
    """
    settings = load(profile, options)
    if settings.journal is None:
        raise UsageError(f"profile {profile} has no journal: the option journal is not set")
    path = settings.journal / profile
    if action == "verify":
        if wanted or user or word or key or since or names or mount:
            raise UsageError("verify checks all lines; the options that choose some are for show")
        return _print_report(verify(path, (kept or "").lower()))
    if kept:
        raise UsageError("--hash is for verify")
    filters = _Filters(_id_of(wanted), _number_of(user), key, _hashes(path, word))
    lines: Iterable[Line] = _chosen(path, filters, since)
    paths: dict[str, str] = {}
    if names:
        lines = list(lines)
        paths = _paths(lines, mount, profile, options)
    for line in lines:
        click.echo(_shown(line, paths))
    return 0


class _Filters(NamedTuple):
    """What the lines to show must have: an object, a user, a key, one of these hashes of a word."""

    object: str | None
    uid: int | None
    key: str | None
    hashes: frozenset[str] | None

    def accept(self, line: Line) -> bool:
        """Return whether a line is to be shown; those of the journal itself only without any."""
        return (
            (self.object is None or line.object == self.object)
            and (self.uid is None or self.uid in (line.uid, line.login))
            and self.key in (None, line.key)
            and (self.hashes is None or not self.hashes.isdisjoint(line.words or ()))
        )


def _chosen(path: Path, filters: _Filters, since: str | None) -> Iterator[Line]:
    """Yield the lines to show, each with that of its end."""
    first = str(first_day(since, "--since")) if since is not None else ""
    shown = set[int]()
    for raw in lines_of(path):
        line = parse(raw.data)
        if line is None:
            click.echo(f"phonofs: {raw.where} cannot be read", err=True)
        elif line.of is not UNSET:
            if line.of in shown:
                yield line
        elif line.at >= first and filters.accept(line):
            shown.add(line.n)
            yield line


def _hashes(path: Path, word: str | None) -> frozenset[str] | None:
    """Return the hashes that a word can have in a line, by what it was asked for as."""
    if word is None:
        return None
    try:
        key = read_search_key(path)
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError(f"the words of searches cannot be compared: {why}") from None
    names = [f"{name}=" for name in Condition.__struct_fields__]
    texts = [name + word.casefold() for name in names]
    texts.append(f"number={digits_of(word)}")
    tag, equals, value = word.partition("=")
    if equals:
        texts.append(f"tag.{tag}={value.casefold()}")
    return frozenset(keyed_hash(key, text) for text in texts)


def _id_of(wanted: str | None) -> str | None:
    """Return the id of an object, given as a file of a mount or as the id itself."""
    if wanted is None or not os.path.lexists(wanted):
        return wanted
    try:
        return os.getxattr(wanted, f"{PREFIX}id").decode()
    except OSError as error:
        raise UsageError(f"{wanted} is no recording of a mount: {error.strerror}") from None


def _number_of(user: str | None) -> int | None:
    if user is None:
        return None
    if user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise UsageError(f"there is no user {user!r} on this machine") from None


def _paths(
    lines: Sequence[Line], mount: str | None, profile: str, options: Sequence[str]
) -> dict[str, str]:
    """Return the paths of the objects in these lines, as far as they are known, by their ids."""
    wanted = {line.object for line in lines if isinstance(line.object, str)}
    found: dict[str, str] = {}
    with source_of(mount, None if mount else profile, options, offline=True) as source:
        for some in source.find(Condition(), "the names", records=True):
            for each in some:
                if each.record is not None and each.record.id in wanted:
                    found[each.record.id] = source.top + each.path
    return found


def _shown(line: Line, paths: dict[str, str]) -> str:
    """Return a line for a terminal."""
    words = [line.at, str(line.n), line.event]
    if line.event == Event.OPEN:
        words = [line.at, str(line.n), str(line.result), *_who(line), f"{line.how}", f"{line.kind}"]
        words += [f"{line.type}", paths.get(str(line.object), str(line.object))]
    elif line.event == Event.CLOSE:
        words.append(f"of {line.of}, at least {format_count(line.bytes_at_least or 0, 'byte')}")
    elif line.event == Event.SEARCH:
        words += [*_who(line), format_count(line.results or 0, "result"), *(line.words or ())]
    elif line.event == Event.EXPORT:
        words += [str(line.result), *_who(line), *_of_export(line)]
    elif line.event == Event.PURGED:
        words += [str(line.reason), format_count(line.freed_bytes or 0, "byte")]
        words += [f"{line.type}", paths.get(str(line.object), str(line.object))]
    elif line.reason is not UNSET:
        words.append(line.reason)
        if isinstance(line.opens, int):
            words.append(f"({format_count(line.opens, 'open')} not recorded)")
    return printable(" ".join(words))


def _who(line: Line) -> list[str]:
    """Return who did something, in words."""
    words = [f"key {line.key}" if isinstance(line.key, str) else _user(line.uid)]
    if isinstance(line.login, int) and line.login != line.uid:
        words.append(f"(logged in as {_user(line.login)})")
    words.append(line.program or "-" if line.program is not UNSET else "-")
    words.append(f"pid {line.pid}" if line.pid else "-")
    return words


def _of_export(line: Line) -> list[str]:
    """Return what a line tells of an export, in words."""
    if line.of is UNSET:
        return [format_count(line.paths or 0, "path"), *(line.words or ())]
    there = format_count(line.objects or 0, "object")
    return [f"of {line.of}, {there}, {line.copied or 0:,} copied, {line.missing or 0:,} missing"]


def _user(uid: object) -> str:
    if not isinstance(uid, int):
        return "-"
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


def _print_report(report: Report) -> int:
    if not report.lines:
        click.echo("there are no lines")
    else:
        click.echo(
            f"{format_count(report.lines, 'line')} in {format_count(report.months, 'month')}, "
            f"{report.first} to {report.end.n}"
        )
    for line in report.gaps:
        click.echo(f"line {line.n}, {line.at}: a gap: {printable(str(line.reason))}")
    for finding in report.findings:
        click.echo(printable(finding))
    if report.findings:
        click.echo("the chain is broken")
        return EXIT_BROKEN
    click.echo(f"the chain is whole; the last hash is {report.end.hash}")
    return 0
