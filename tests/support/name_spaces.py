"""Mount name spaces, as the node and the pods of Kubernetes have them. Needs root."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.mounts import START_S


def why_no_name_space() -> str:
    """Why no mount name space can be made here; empty if one can."""
    try:
        made = subprocess.run(
            ["unshare", "--mount", "nsenter", "--version"], capture_output=True, text=True
        )
    except FileNotFoundError:
        return "unshare and nsenter are missing (package util-linux)"
    return "" if made.returncode == 0 else f"no mount name space can be made: {made.stderr.strip()}"


class NameSpace:
    """A process that does nothing but keep a mount name space. Owns the process."""

    def __init__(self, propagation: str, script: str = ":", within: "NameSpace | None" = None):
        """``script`` is run in it first; ``within`` is the name space it is made from."""
        entering = within.entering() if within else []
        self._process = subprocess.Popen(
            [*entering, "unshare", "--mount", "--propagation", propagation, "sh", "-ec",
             f"{script}\necho ready\nexec sleep infinity"],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if said != b"ready\n":
            self.close()
        assert said == b"ready\n"

    def entering(self) -> list[str]:
        """The beginning of a command that is to run in here."""
        return ["nsenter", f"--mount=/proc/{self._process.pid}/ns/mnt"]

    def run(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*self.entering(), *command], capture_output=True, timeout=START_S)

    def mounts(self) -> list[str]:
        """Where phonofs is mounted in here."""
        table = Path(f"/proc/{self._process.pid}/mountinfo").read_text().splitlines()
        return [line.split()[4] for line in table if " - fuse.phonofs " in line]

    def close(self) -> None:
        self._process.kill()
        self._process.wait(START_S)
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextlib.contextmanager
def name_space(
    propagation: str, script: str = ":", within: NameSpace | None = None
) -> Iterator[NameSpace]:
    """Make a name space that ends with the block."""
    made = NameSpace(propagation, script, within)
    try:
        yield made
    finally:
        made.close()
