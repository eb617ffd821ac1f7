"""The table of all options; help, manual pages and documentation are generated from it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

DEFAULT_TEMPLATE = "{time}_{type}_{direction}_{name}_{party}_{id8}"
LOG_LEVELS = ("debug", "info", "warning", "error")
TEMPLATE_FIELDS = ("time", "type", "direction", "name", "party", "id8", "id")


class Kind(StrEnum):
    """The kind of a value, in the words that the manual uses for it."""

    TEXT = "text"
    SECRET = "secret"  # noqa: S105 (the name of a kind)
    PATH = "path"
    URL = "URL"
    LIST = "list"
    ZONE = "time zone"
    DATE = "date"
    SIZE = "size"
    DURATION = "duration"
    RATE = "rate"
    NUMBER = "number"
    MODE = "octal mode"
    FLAG = "flag"
    CHOICE = "choice"
    TEMPLATE = "template"
    NAME = "name"
    ADDRESS = "address"


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    name     its name in TOML, ``-o`` and (in upper case, with a prefix) the environment
    kind     the kind of its value
    default  in the form a user would write; if empty, ``default_note`` may say what is used
    help     its meaning, in one line
    choices  the values that a CHOICE accepts
    least, most  the bounds of a NUMBER, SIZE or DURATION
    """

    name: str
    kind: Kind
    default: str
    help: str
    default_note: str = ""
    choices: tuple[str, ...] = ()
    least: float = 0
    most: float = float("inf")

    @property
    def secret(self) -> bool:
        """Whether its value must be neither shown nor given on a command line."""
        return self.kind is Kind.SECRET

    @property
    def variable(self) -> str:
        """The name of its environment variable."""
        return f"PHONOFS_{self.name.upper()}"

    @property
    def shown_default(self) -> str:
        """The default in the form that the manual shows."""
        return self.default_note or self.default


OPTIONS: tuple[Option, ...] = (
    Option("key", Kind.TEXT, "", "the API key (client id)"),
    Option("secret", Kind.SECRET, "", "its secret; never from -o"),
    Option("secret_file", Kind.PATH, "", "a file that holds the secret, readable by you alone"),
    Option(
        "api_url",
        Kind.URL,
        "https://api.8x8.com",
        "the URL of the service; plain http only for a loopback address",
    ),
    Option("regions", Kind.LIST, "", "the regions to show", "ask the service"),
    Option("timezone", Kind.ZONE, "", "the time zone of the folders' dates", "the system's"),
    Option("types", Kind.LIST, "", "the object types to show", "all"),
    Option("since", Kind.DATE, "", "the oldest date to show", "no limit"),
    Option(
        "cache_dir",
        Kind.PATH,
        "",
        "the folder of content and catalogue; only you may open it, and one mount at a time",
        "$XDG_CACHE_HOME/phonofs/PROFILE",
    ),
    Option("cache_size", Kind.SIZE, "10G", "the most that content takes on disk; 0: none is kept"),
    Option("cache_min_free", Kind.SIZE, "1G", "disk space that is always left free"),
    Option(
        "cache_encrypt",
        Kind.CHOICE,
        "off",
        "encrypt content on disk: session (its key is never stored, so each mount starts with an "
        "empty cache) or keyring",
        choices=("off", "session", "keyring"),
    ),
    Option(
        "poll_interval",
        Kind.DURATION,
        "60s",
        "how often the service is asked for changes; 0: never",
        least=0,
    ),
    Option(
        "index",
        Kind.CHOICE,
        "off",
        "what is brought in the background: off, records (the whole account is known), or texts "
        "(also transcripts, summaries and notes)",
        choices=("off", "records", "texts"),
    ),
    Option("page_size", Kind.NUMBER, "100", "records per page of a search", least=1, most=1000),
    Option(
        "max_connections",
        Kind.NUMBER,
        "16",
        "the most connections to the service at a time",
        least=1,
        most=256,
    ),
    Option(
        "max_rate",
        Kind.RATE,
        "",
        "the most requests to the service, such as 10/min; without it fewer are sent after a 429",
        "no limit",
    ),
    Option(
        "timeout",
        Kind.DURATION,
        "30s",
        "a request that receives nothing for this long fails",
        least=0.1,
    ),
    Option(
        "read_deadline",
        Kind.DURATION,
        "60s",
        "the longest that a read waits, including retries; then EIO",
        least=0.1,
    ),
    Option(
        "verify",
        Kind.CHOICE,
        "checksum",
        "what complete content must match: its checksum; with length, if its checksum differs, "
        "its length and a second download",
        choices=("checksum", "length"),
    ),
    Option("name_template", Kind.TEMPLATE, DEFAULT_TEMPLATE, "how files are named"),
    Option(
        "archived",
        Kind.CHOICE,
        "show",
        "whether objects in cold storage are listed",
        choices=("show", "hide"),
    ),
    Option(
        "views",
        Kind.NAME,
        ".views",
        "the folder of the views; not listed if its name begins with a dot; empty: none",
    ),
    Option(
        "texts",
        Kind.CHOICE,
        "on",
        "whether the views have readable texts and subtitles",
        choices=("on", "off"),
    ),
    Option(
        "crawlers",
        Kind.LIST,
        "tumblerd:ffmpegthumbnailer:totem-video-thu:tracker-extract:tracker-miner-f:"
        "localsearch-3:baloo_file_extr",
        "programs that may look at names but not open recordings; empty: none",
    ),
    Option(
        "journal", Kind.PATH, "", "a folder for the access journal: who opened what, when", "off"
    ),
    Option(
        "journal_sync",
        Kind.DURATION,
        "1s",
        "how long a line of the journal may stay in memory; 0: each open waits for the disk",
        least=0,
    ),
    Option(
        "journal_full",
        Kind.CHOICE,
        "deny",
        "whether files can be opened while the journal cannot be written",
        choices=("deny", "allow"),
    ),
    Option("uid", Kind.NUMBER, "", "owner of the files", "the caller's", most=2**32 - 2),
    Option("gid", Kind.NUMBER, "", "group of the files", "the caller's", most=2**32 - 2),
    Option("umask", Kind.MODE, "0222", "permission bits to clear", most=0o777),
    Option("allow_other", Kind.FLAG, "", "let other users read, too", "no"),
    Option(
        "subtype",
        Kind.TEXT,
        "phonofs",
        "the file system type shown is fuse.SUBTYPE; desktops treat sshfs as remote",
    ),
    Option("metrics", Kind.ADDRESS, "", "address to serve Prometheus metrics on", "off"),
    Option(
        "log_level",
        Kind.CHOICE,
        "info",
        "how much is logged",
        choices=LOG_LEVELS,
    ),
    Option("log_file", Kind.PATH, "", "where the log goes", "journal or stderr"),
)

BY_NAME: Mapping[str, Option] = {option.name: option for option in OPTIONS}
