"""Writes the manual pages from the tables they document: commands, options, exit statuses.

``python contrib/dev/make_man.py`` writes man/; a test fails if they are out of date. The language
is mdoc(7).
"""

import importlib
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from phonofs.cli import COMMANDS
from phonofs.config import OPTIONS, TEMPLATE_FIELDS, Kind, Option

FOLDER = Path(__file__).resolve().parents[2] / "man"
WIDTH = 72
DATE = "November 23, 2026"

EXIT_STATUS = (
    ("0", "done"),
    ("1", "wrong usage or configuration"),
    ("2", "the credentials are refused"),
    ("3", "the service cannot be reached"),
    ("4", "done in part; what is missing was said"),
    ("32", "the mount failed, as with mount(8)"),
    ("130", "interrupted by Ctrl-C"),
)

ERRORS = (
    ("ENOENT", "There is no such name."),
    ("EROFS", "Something that would change the tree; nothing does."),
    ("ENODATA", "The object is archived: ask for it with phonofs restore."),
    (
        "EACCES",
        "The service refuses it to this key, the key or its secret cannot be read, or the key is "
        "another account's than the one that is mounted; or the program is one of the crawlers.",
    ),
    ("ESTALE", "The object is gone, or has other content than when it was opened: open it again."),
    (
        "EIO",
        "The service cannot be reached or was too slow, or gave wrong bytes twice, or the access "
        "journal cannot be written; the log has more.",
    ),
    ("ENOTCONN", "The process of the mount has died: phonofs umount, then mount again."),
)

ATTRIBUTES = (
    ("user.phonofs.id", "the object's id"),
    ("user.phonofs.region", "the region it is in"),
    (
        "user.phonofs.type",
        "its type, such as callrecording; of what the views make: text, subtitles, summary-text, "
        "notes-text or list",
    ),
    ("user.phonofs.made_from", "of a text in the views: the ids of the objects it is made of"),
    ("user.phonofs.state", "AVAILABLE or ARCHIVED"),
    ("user.phonofs.checksum", "its checksum, as the service says it"),
    ("user.phonofs.object_name", "its name at the service, unchanged"),
    ("user.phonofs.created, user.phonofs.updated", "when, in UTC"),
    ("user.phonofs.cached", "how many of its bytes are in the cache"),
    ("user.phonofs.tag.KEY", "each of its tags"),
    ("user.mime_type", "its media type"),
    ("user.phonofs.json", "the whole record"),
    ("user.phonofs.path", "the path below the mount point, of folders too"),
    ("user.phonofs.known", "of the root only: the days of which every object is known, as JSON"),
    ("user.phonofs.status", "of the root only: what phonofs status --json prints"),
)

STATUS = (
    ("version, pid, profile, mountpoint, uptime_s", "which mount it is, and since when"),
    ("condition", "how it is, in one sentence"),
    ("control", "the socket that takes commands, of its owner and root"),
    ("control_error", "why there is no such socket now; empty where there is one"),
    (
        "control_shared",
        "with allow_other: the abstract socket that takes restore, find and manifest from users "
        "who may read files",
    ),
    ("catalogue", "objects and bytes known, and the regions"),
    (
        "catalogue.followed.REGION",
        "watermark_ms: the newest change known; polled_at: the last time the service was asked "
        "for changes and answered; failures: tries in vain since",
    ),
    (
        "catalogue.known.REGION",
        "the days of which every object is known: the first and the last of each run of days",
    ),
    (
        "index",
        "state of the background index (off, listing, waiting, done), the day listed last (day), "
        "why it waits (error), and with index=texts how many texts are known (texts)",
    ),
    (
        "restores",
        "archived objects asked back that are not there yet (pending), and since when",
    ),
    ("service", "requests by kind, errors by class, received_bytes, paused_s: told to wait"),
    ("service.slots", "connections in all, in use, in use ahead of readers; requests that wait"),
    (
        "service.rate",
        "requests a second that max_rate allows (max_per_s) and that are allowed at present "
        "(limit_per_s), null for no limit; requests that wait for that (waiting); answers with "
        "status 429 (throttled)",
    ),
    (
        "service.token",
        "whether there is a valid one, its life_s, how many were fetched and rejected, the "
        "failures in a row and the last error",
    ),
    ("service.ways.REGION", "how content comes: range, presign, redirect or stream"),
    (
        "cache",
        "state (on, or off with a reason), objects, disk_bytes of cap_bytes, memory_bytes, what "
        "is open and pinned, bytes read, written, lost and refused, evictions, errors",
    ),
    (
        "reader",
        "hits and misses, bytes served, fetched and discarded, failures, wrong checksums; what "
        "is under way: waiters, streams, handles, parts, files ahead",
    ),
    (
        "opens",
        "by_program: the programs that opened most; refused: how often a program of crawlers was",
    ),
    (
        "journal",
        "state (off, on, failing), error, the file, lines written, number and hash of the last "
        "line (last, last_hash), failures, opens without a line (unrecorded), reserve_bytes",
    ),
    ("views", "the name of their folder; empty if there are none"),
    (
        "texts",
        "texts of the views that are being made, and types of contents whose form is not known "
        "(unknown_forms)",
    ),
    (
        "door",
        "how programs read without the mount: the path of the socket, or the error that explains "
        "why there is none; connections, handles (files open), active (requests being answered), "
        "requests and bytes in all, answers by errno",
    ),
    (
        "s3",
        "with serve --listen: the address, the number of keys and why a changed file of them was "
        "not taken (keys_error); connections, active (requests being answered), requests and bytes "
        "in all, connections turned away, errors by code",
    ),
    (
        "fuse",
        "open files and folders, operations waiting, answers by errno, the last error and its time",
    ),
)
"""The status: places in its JSON. Names stay; more may come."""


PROGRAMS = (
    ("autostart", "whether phonofs serve PROFILE --idle 10m is started if nothing serves it: True"),
    ("socket", "the socket of a daemon, instead of the one that the profile's cache folder names"),
    ("timeout", "seconds to wait for an answer: read_deadline and 10 s"),
    ("block_size", "bytes that a small read of an open file asks for: 1 MiB"),
    ("cache_type", "how an open file reads ahead, one of fsspec's: readahead"),
)
"""The options of the file system for fsspec, with their defaults."""

S3_KEYS = (
    ("name", "who has it; stands in the access journal"),
    ("access_key", "what clients sign with, not secret: 3 to 128 letters, digits, _ or -"),
    ("secret_key", "at least 32 characters; `openssl rand -hex 32` makes one"),
    (
        "prefixes",
        "a list of paths, such as 2026/2026-11: the key opens and lists these and what is below "
        "them; left out: everything",
    ),
    (
        "types",
        "a list of types of objects, such as callrecording: the key opens and lists only these, "
        "and of the views only texts that are made of them; left out: all",
    ),
)
"""The fields of a key of S3 clients."""

S3_ERRORS = (
    ("NoSuchKey", "There is no such name, or it is a folder."),
    ("InvalidObjectState", "The object is archived: RestoreObject asks for it, up to 24 hours."),
    (
        "AccessDenied",
        "The key does not open that, whether it is there or not; or the service refuses it to the "
        "account's key.",
    ),
    (
        "SlowDown",
        "The service cannot be reached, throttles or is too slow, or the object changed; with a "
        "Retry-After.",
    ),
    ("InternalError", "Wrong bytes twice. If some were sent, the connection ends instead."),
    ("MethodNotAllowed", "Whatever would change something, and all other operations."),
    (
        "SignatureDoesNotMatch, InvalidAccessKeyId, RequestTimeTooSkewed",
        "The signature is not one of the keys', or its time is more than 15 minutes off.",
    ),
)
"""What S3 clients may meet."""


def text(words: str) -> str:
    """Words as mdoc takes them: a line a sentence at least, none of it a request or an escape."""
    sentences = re.split(r"(?<=[^.]\.) (?=[A-Z])", " ".join(words.split()))
    lines = [
        line for each in sentences for line in textwrap.wrap(each, WIDTH, break_on_hyphens=False)
    ]
    return "\n".join(escaped(line) for line in lines)


def escaped(line: str) -> str:
    """One line without anything that mdoc would act upon."""
    line = line.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", line)


def argument(words: str) -> str:
    """Words as one argument of a macro."""
    return '"' + escaped(words).replace('"', "\\(dq") + '"'


def items(pairs: Iterable[tuple[str, str]], tag: str = "Li") -> Iterator[str]:
    """A tagged list; nothing where it would be empty."""
    entries = list(pairs)
    if not entries:
        return
    yield ".Bl -tag -width Ds"
    for name, meaning in entries:
        yield f".It {tag} {argument(name)}"
        yield text(sentence(meaning))
    yield ".El"


def sentence(words: str) -> str:
    """Words with a capital and a full stop."""
    words = words.strip()
    words = words if words.endswith((".", ":")) else words + "."
    return words[0].upper() + words[1:] if words[0].islower() else words


def head(name: str, section: int, what: str) -> Iterator[str]:
    """The beginning every page has."""
    yield '.\\" Made by contrib/dev/make_man.py; change that, or the tables it reads.'
    yield f".Dd {DATE}"
    yield f".Dt {name.upper()} {section}"
    yield ".Os"
    yield ".Sh NAME"
    yield f".Nm {name}"
    yield f".Nd {what}"


def commands() -> Iterator[tuple[str, click.Command]]:
    """The commands that help shows."""
    for name, entry in COMMANDS.items():
        if not entry.hidden:
            yield name, importlib.import_module(f"phonofs.cli.{entry.module}").command


def command_section(name: str, command: click.Command) -> Iterator[str]:
    """One command: its usage, help, and options."""
    context = click.Context(command, info_name=name)
    pieces = [piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]"]
    yield f".Ss phonofs {name} {escaped(' '.join(pieces))}".rstrip()
    for paragraph in (command.help or "").split("\n\n"):
        yield text(" ".join(paragraph.split()))
        yield ".Pp"
    options = [each for each in command.params if isinstance(each, click.Option)]
    records = (each.get_help_record(context) for each in options)
    yield from items((record for record in records if record), tag="Li")
    for title, rows in getattr(command, "tables", ()):
        yield from [".Pp", text(f"{title}:")]
        yield from items(rows)


def phonofs_1() -> Iterator[str]:
    """The commands."""
    yield from head("phonofs", 1, "the recordings of an 8x8 account as a read-only folder")
    yield from [".Sh SYNOPSIS", ".Nm", ".Ar command", ".Op Ar option ...", ".Op Ar argument ..."]
    yield ".Sh DESCRIPTION"
    yield ".Nm"
    yield text(
        "mounts calls, voicemails, screen recordings and transcripts as files, by date. Nothing "
        "is downloaded until it is read; what was read stays in a bounded cache on disk. The "
        "folders are YEAR/YEAR-MONTH/YEAR-MONTH-DAY in the time zone of the configuration; with "
        "more than one region, each is a folder above the years."
    )
    yield ".Sh COMMANDS"
    for name, command in commands():
        yield from command_section(name, command)
    yield ".Sh EXTENDED ATTRIBUTES"
    yield from items(ATTRIBUTES)
    yield ".Sh PROGRAMS"
    yield text(
        "Programs that take fsspec (pandas, Arrow, DuckDB, Dask, Ray and others) read by the URL "
        "phonofs://PROFILE/PATH, where PATH is that of the mount, or .id/REGION/ID for an object "
        "by its id. They share one daemon of their user, a mount or phonofs serve. All that writes "
        "is EROFS; what cannot be asked is an error, never absence. The options of the file "
        "system, none of which is a secret, also as FSSPEC_PHONOFS_NAME in the environment:"
    )
    yield from items(PROGRAMS)
    yield ".Sh S3 CLIENTS"
    yield text(
        "phonofs serve PROFILE --listen ADDRESS:PORT --keys FILE serves the account to S3 "
        "clients, read-only. The bucket is PROFILE, a key of it is a path of the mount; the views "
        "are listed if a prefix leads into them. Clients are told the endpoint, path style, and "
        "any region. Without --tls-cert, only clients on this machine are served. It answers "
        "ListBuckets, HeadBucket, GetBucketLocation, ListObjectsV2, ListObjects, HeadObject, "
        "GetObject and RestoreObject, signed with Signature Version 4 in a header or a presigned "
        "URL."
    )
    yield ".Pp"
    yield text(
        "FILE is TOML, readable by its owner alone, with a table [[key]] for each key. SIGHUP has "
        "it read again, and the certificate too. The fields of a key:"
    )
    yield from items(S3_KEYS)
    yield ".Pp"
    yield text("Errors, by their code:")
    yield from items(S3_ERRORS)
    yield ".Sh STATUS"
    yield text(
        "phonofs status --json prints one object on one line. The ending of a name says its unit: "
        "_s seconds, _bytes, _ms milliseconds since 1970, _at seconds since 1970. What is named "
        "here stays; more may come."
    )
    yield from items(STATUS)
    yield from [".Sh ENVIRONMENT", text("Every option of"), ".Xr phonofs.toml 5"]
    yield text(
        "can be given as a variable, PHONOFS_ and its name in capitals. Variables that Kubernetes "
        "makes of a service called phonofs (PHONOFS_SERVICE_HOST, PHONOFS_PORT and their like) and "
        "PHONOFS_CHANGE, which watch sets for its command, are left alone."
    )
    yield ".Sh FILES"
    yield from items(
        (
            ("/etc/phonofs.toml", "the configuration of the system"),
            ("$XDG_CONFIG_HOME/phonofs/config.toml", "that of the user, which wins"),
            ("$XDG_CONFIG_HOME/phonofs/credentials/PROFILE", "where login keeps key and secret"),
            ("$XDG_CACHE_HOME/phonofs/PROFILE", "the cache and the catalogue"),
            (
                "$XDG_CACHE_HOME/phonofs/PROFILE/door",
                "the path of the socket for programs, while a mount or serve runs",
            ),
        ),
        tag="Pa",
    )
    yield ".Sh EXIT STATUS"
    yield from items(EXIT_STATUS)
    yield ".Sh EXAMPLES"
    yield text("The made-up account, without a key or a network:")
    yield ".Dl phonofs demo calls"
    yield text("An account, once its key and secret are known:")
    yield from [".Dl phonofs login", ".Dl phonofs mount \\(ti/calls"]
    yield ".Sh DIAGNOSTICS"
    yield text("What a reader of the mounted files may meet:")
    yield from items(ERRORS, tag="Er")
    yield from [".Sh SEE ALSO", ".Xr phonofs.toml 5 ,", ".Xr mount.phonofs 8"]


def option_entry(option: Option) -> tuple[str, str]:
    """An option, its kind, meaning, choices and default."""
    parts = [option.help]
    if option.choices:
        parts.append("One of " + ", ".join(option.choices))
    if option.kind is Kind.TEMPLATE:
        parts.append("Fields: " + ", ".join(TEMPLATE_FIELDS) + "; id8 or id is needed")
    if option.shown_default:
        parts.append(f"Default: {option.shown_default}")
    return f"{option.name} ({option.kind})", " ".join(sentence(part) for part in parts)


def phonofs_toml_5() -> Iterator[str]:
    """The configuration."""
    yield from head("phonofs.toml", 5, "configuration of phonofs")
    yield ".Sh DESCRIPTION"
    yield text(
        "A TOML file with a table for each profile. What the table [default] says holds for all "
        "profiles, and it is the profile that is meant where none is named. Later wins: "
        "/etc/phonofs.toml, $XDG_CONFIG_HOME/phonofs/config.toml, the environment, -o. Lists are "
        "TOML lists; in the environment and with -o they are joined by colons, and a comma "
        "within a value is written with a backslash. A name that is not known, or a value that "
        "cannot be used, is an error."
    )
    yield ".Pp"
    yield text(
        "A file that holds a secret must be readable by its owner alone. A file that others can "
        "write to or replace, or that belongs to another user than its reader or root, is refused; "
        "so is a secret_file or a log_file in a folder where others can."
    )
    yield ".Pp"
    yield text(
        "The default of timezone is the name of the system's zone, from TZ, /etc/localtime or "
        "/etc/timezone. It has to agree with the clock of the C library in summer and winter; "
        "where none does, timezone must be set."
    )
    yield ".Sh OPTIONS"
    yield from items(option_entry(option) for option in OPTIONS)
    yield ".Sh FILES"
    yield from [".Pa /etc/phonofs.toml ,", ".Pa $XDG_CONFIG_HOME/phonofs/config.toml"]
    yield ".Sh EXAMPLES"
    yield ".Bd -literal -offset indent"
    yield from (
        escaped(line)
        for line in (
            "[default]",
            'timezone = "Europe/London"',
            'cache_size = "50G"',
            "",
            "[work]",
            'key = "eght_…"',
            'secret_file = "/etc/phonofs/work.secret"',
            'types = ["callrecording", "transcription"]',
            "since = 2024-01-01",
        )
    )
    yield from [".Ed", ".Sh SEE ALSO", ".Xr phonofs 1 ,", ".Xr mount.phonofs 8"]


def mount_phonofs_8() -> Iterator[str]:
    """The mount helper."""
    yield from head("mount.phonofs", 8, "mount helper of phonofs")
    yield from [".Sh SYNOPSIS", ".Nm", ".Ar profile", ".Ar mountpoint", ".Op Fl sfnv"]
    yield ".Op Fl o Ar options"
    yield ".Sh DESCRIPTION"
    yield text("Called by")
    yield ".Xr mount 8"
    yield text("for mount -t phonofs and for lines of")
    yield ".Xr fstab 5 ,"
    yield text("once phonofs setup-mount-helper has put it into /sbin. The options are those of")
    yield ".Xr phonofs.toml 5 ;"
    yield text(
        "those that mount(8) passes on to every file system (ro, nosuid, nofail, _netdev, user, "
        "x-systemd.automount and so on) are taken and ignored, and so is what the kernel writes "
        "into /proc/mounts (user_id, group_id and so on), so that a line of it can be copied. A "
        "phonofs mount is always ro,nosuid,nodev,noexec,default_permissions."
    )
    yield ".Pp"
    yield text(
        "Where the same profile is mounted on the mount point already, there is nothing to do and "
        "the status is 0, for mount -a and for mount -o remount. A remount names the options that "
        "differ from those of the running mount: they take effect at the next mount."
    )
    helper = importlib.import_module("phonofs.cli.mount_helper").command
    context = click.Context(helper, info_name="mount.phonofs")
    options = [each for each in helper.params if isinstance(each, click.Option)]
    records = (each.get_help_record(context) for each in options)
    yield from items((record for record in records if record), tag="Li")
    yield ".Sh WITHOUT PRIVILEGES"
    yield text(
        "mount.fuse3(8) can make the mount, drop every capability, and start phonofs, which it "
        "finds in PATH, with the opened device as its mount point:"
    )
    yield ".Bd -literal -offset indent"
    yield escaped("mount -t fuse3 phonofs#work /mnt/calls -o drop_privileges,setuid=phonofs,\\")
    yield escaped("allow_other,default_permissions,ro,nosuid,nodev,noexec")
    yield ".Ed"
    yield text(
        "The last five must be said there, since phonofs comes too late to say them; allow_other "
        "without default_permissions is refused. The option foreground, known here alone, keeps "
        "phonofs in the foreground, for a unit of systemd that runs mount.fuse3 itself."
    )
    yield ".Sh EXIT STATUS"
    yield from items(EXIT_STATUS[:-1])
    yield ".Sh EXAMPLES"
    yield text("A line of /etc/fstab that mounts when somebody looks:")
    yield ".Dl work /mnt/calls phonofs _netdev,allow_other,x\\-systemd.automount 0 0"
    yield from [".Sh SEE ALSO", ".Xr phonofs 1 ,", ".Xr phonofs.toml 5 ,", ".Xr mount 8"]


PAGES = {
    "phonofs.1": phonofs_1,
    "phonofs.toml.5": phonofs_toml_5,
    "mount.phonofs.8": mount_phonofs_8,
}


def page(name: str) -> str:
    """The source of one page."""
    lines = list(PAGES[name]())
    # A paragraph break before a list or a section is one too many.
    kept = [
        line
        for line, following in zip(lines, [*lines[1:], ".Sh"], strict=True)
        if line != ".Pp" or not following.startswith((".Sh", ".Ss", ".Bl", ".Pp"))
    ]
    return "\n".join(kept) + "\n"


def main() -> None:
    """Write all pages, or those named."""
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or PAGES:
        (FOLDER / name).write_text(page(name), encoding="utf-8")


if __name__ == "__main__":
    main()
