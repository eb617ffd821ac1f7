"""The clients of a file system, one for each profile."""

from pathlib import Path

from phonofs.client import Client
from phonofs.config import check_profile
from phonofs.config.load import profiles
from phonofs.errors import UsageError
from phonofs.spec.entries import absent

PATH_MAX = 4095
"""The most bytes of a path; PATH_MAX of linux/limits.h, without the NUL."""


class Clients:
    """Makes clients when they are first asked for, and keeps them.

    address    the socket of a daemon, which is the only one then; None: each profile's own
    timeout_s  how long to wait for an answer; None: what the profile's daemon may take
    autostart  whether a daemon may be started
    """

    def __init__(self, address: Path | None, timeout_s: float | None, *, autostart: bool) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._autostart = autostart
        self._made: dict[str, Client] = {}

    def names(self) -> list[str]:
        """Return the profiles: those that are configured, or that of the socket."""
        if self._address is not None:
            client = Client("", address=self._address, timeout_s=self._timeout_s)
            name = client.served()
            client.drop_idle()
            return [name]
        try:
            return profiles()
        except UsageError as error:
            raise ConnectionError(str(error)) from None

    def place(self, path: str) -> tuple[Client, str]:
        """Return the client of a path, and the path below the root of its profile.

        Raises FileNotFoundError if no path is like that.
        """
        profile, _, below = path.partition("/")
        try:
            check_profile(profile)
            if len(below.encode()) > PATH_MAX:
                raise absent(f"{path[:100]}…")
        except (UnicodeEncodeError, UsageError):
            raise absent(path) from None
        made = self._made.get(profile)
        if made is None:
            client = Client(
                profile,
                address=self._address,
                timeout_s=self._timeout_s,
                autostart=self._autostart,
            )
            made = self._made.setdefault(profile, client)  # another thread may be ahead
        return made, below
