"""``--before DIR``: another checkout of phonofs, measured in turns with this one."""

import argparse
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from phonobench.peers import BEFORE, INSTALLED, OURS, Peer
from phonobench.processes import Failed

ROUNDS = 9
"""As many as it takes that a row is rarely called slower, or not slower, by chance."""


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the arguments, with the option ``--before``; exit with 2 if it names no checkout."""
    parser.add_argument(
        "--before", type=Path, metavar="DIR",
        help="another checkout of phonofs: install it and this one into temporary environments and "
             f"measure them in turns, {ROUNDS} rounds unless --rounds says otherwise; exit with 1 "
             "if a row is slower, that is, if the ratios of all rounds are below 0.95 (memory: "
             "0.99)",
    )  # fmt: skip
    given = parser.parse_args()
    if given.before is not None and not is_checkout(given.before):
        parser.exit(2, f"{parser.prog}: {given.before} is not a checkout of phonofs.\n")
    return given


def is_checkout(folder: Path) -> bool:
    """Whether the folder has a ``pyproject.toml`` of phonofs."""
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text()).get("project", {})
    except (OSError, ValueError):
        return False
    return isinstance(project, dict) and project.get("name") == "phonofs"


def pair(checkout: Path, work: Path) -> list[Peer]:
    """Install this checkout and the other one below ``work``; return both, or raise Failed.

    Both in the same way, because that shows: an environment with ``cryptography``, for one, costs
    10 MiB of memory.
    """
    here = Path(__file__).resolve().parents[3]
    return [_install(OURS, here, work), _install(BEFORE, checkout, work)]


def _install(name: str, checkout: Path, work: Path) -> Peer:
    """Nothing is written into the checkout, and changes made to it later have no effect."""
    print(f"installing {checkout}", file=sys.stderr, flush=True)
    venv = work / "environments" / name
    python = str(venv / "bin" / "python")
    for command in (
        [sys.executable, "-m", "venv", str(venv)],
        [python, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check",
         str(checkout.resolve())],
    ):  # fmt: skip
        done = subprocess.run(command, env={**os.environ, **INSTALLED}, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, check=False)  # fmt: skip
        if done.returncode:
            said = done.stderr.strip().splitlines()[-1:]
            raise Failed(f"{checkout} could not be installed: {''.join(said)}")
    return Peer(name, program=str(venv / "bin" / "phonofs"))


def versions(peer: Peer) -> str:
    """Return what its environment has, for the line under the table."""
    code = "import importlib.metadata as m; print(m.version('pyfuse3'), 'trio', m.version('trio'))"
    python = str(Path(peer.program).with_name("python"))
    done = subprocess.run([python, "-c", code], env={**os.environ, **INSTALLED},
                          capture_output=True, text=True, check=False)  # fmt: skip
    return f"{peer.name}: pyfuse3 {done.stdout.strip()}"
