"""A recipe of contrib/jobs with an engine that hashes. For ``tests/client`` and ``tests/s3``."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.support.doors import PROFILE, Served
from tests.support.mounts import phonofs

ROOT = Path(__file__).resolve().parents[2]
JOBS = ROOT / "contrib/jobs"
ENGINE = ROOT / "tests/client"
"""Where ``stand_in_engine`` is."""

LIMIT_S = 200


class Job:
    """A recipe with its folders; ``calls`` are the hashes that its engine made."""

    def __init__(self, daemon: Served, folder: Path, recipe: str, **environment: str) -> None:
        self._daemon = daemon
        self._environment = environment
        self._recipe = recipe
        self.manifest = folder / "manifest"
        self.out = folder / "out"
        self._calls = folder / "calls"
        self._failed = folder / "failed"

    def list(self, *words: str) -> None:
        """Bring the manifest up to date."""
        asked = ("manifest", "--profile", PROFILE, "--parquet", str(self.manifest), *words)
        done = phonofs(self._daemon, *asked)
        assert done.returncode == 0, done.stderr

    def start(self, *words: str, fail: str = "") -> subprocess.Popen[str]:
        environment = {
            "PYTHONPATH": str(ENGINE),
            "CALLS": str(self._calls),
            "FAILED": str(self._failed),
            "FAIL": fail,
            "RAY_AUTH_MODE": "disabled",
        }
        return subprocess.Popen(
            [
                sys.executable, str(JOBS / self._recipe), str(self.manifest), str(self.out),
                "--engine", "stand_in_engine:measure", "--batch", "5", *words,
            ],
            env=os.environ | environment | self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )  # fmt: skip

    def run(self, *words: str, fail: str = "") -> str:
        process = self.start(*words, fail=fail)
        return self.end(process)

    def end(self, process: subprocess.Popen[str]) -> str:
        """Wait until it has done everything."""
        said, errors = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, errors
        return said

    def kill(self, process: subprocess.Popen[str]) -> None:
        """Kill it with all that it started."""
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=LIMIT_S)

    def calls(self) -> Counter[str]:
        return Counter(self._calls.read_text().split()) if self._calls.exists() else Counter()

    def has_failed(self) -> bool:
        return self._failed.exists()

    def outputs(self) -> dict[str, str]:
        """Return the hash in each output, by the id in its name."""
        files = [path for path in self.out.rglob("*") if path.is_file()]
        found = {path.name.split(".")[1]: json.loads(path.read_text())["md5"] for path in files}
        assert len(found) == len(files), "a recording has two outputs"
        return found
