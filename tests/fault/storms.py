"""Runs stress-ng on a mount: storms of stat, and of name changes in an overlay over the mount."""

import contextlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

NAMES = {
    "dentry": 2048, "dir": 3000, "filename": 100, "link": 1, "rename": 10, "touch": 100,
    "symlink": 1, "access": 100, "chdir": 1,
}  # fmt: skip
"""Stressors that create names and look them up, and how many operations of each: what a second
gives on an idle machine, of those that count names; of the others, the least there is."""


class Storm:
    """A running stress-ng; :meth:`operations` waits for its end."""

    def __init__(self, temporary: Path, seconds: float, *words: object) -> None:
        command = ["stress-ng", "--metrics-brief", "--temp-path", temporary, *words]
        command += ["--timeout", f"{max(1, seconds):.0f}s"]
        self.process = subprocess.Popen(
            [str(word) for word in command],
            cwd=temporary,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def operations(self, within_s: float = 60) -> dict[str, int]:
        """Return the operations of each stressor. Raises AssertionError if one failed."""
        said, _ = self.process.communicate(timeout=within_s)
        assert self.process.returncode == 0, said
        return {
            name: int(count) for name, count in re.findall(r"metrc: \[\d+\] (\w+) +(\d+) ", said)
        }

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()  # it ends its children
            self.process.wait(60)
        self.process.stdout.close()


@contextlib.contextmanager
def storm(temporary: Path, seconds: float, *words: object) -> Iterator[Storm]:
    begun = Storm(temporary, seconds, *words)
    try:
        yield begun
    finally:
        begun.kill()


def stats(folder: Path, workers: int) -> tuple[object, ...]:
    """Read the attributes of each file of a directory all the time."""
    return ("--fstat", workers, "--fstat-dir", folder)


def names() -> tuple[object, ...]:
    return tuple(
        word for name, count in NAMES.items() for word in (f"--{name}", 1, f"--{name}-ops", count)
    )


@contextlib.contextmanager
def overlaid(lower: Path, folder: Path) -> Iterator[Path]:
    """Make a directory of the mount writable by an overlay in memory."""
    layers, merged = folder / "layers", folder / "merged"
    layers.mkdir()
    merged.mkdir()
    with mounted("tmpfs", layers, "size=64m"):
        (layers / "upper").mkdir()
        (layers / "work").mkdir()
        options = f"lowerdir={lower},upperdir={layers}/upper,workdir={layers}/work"
        with mounted("overlay", merged, options):
            yield merged


@contextlib.contextmanager
def mounted(kind: str, point: Path, options: str) -> Iterator[None]:
    done = subprocess.run(["mount", "-t", kind, "-o", options, "none", point], capture_output=True)
    if done.returncode:
        pytest.skip(f"an {kind} cannot be mounted: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", point], check=True)
