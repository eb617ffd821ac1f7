"""Processes and mounts of the benchmark: started, waited for, and ended by their own id."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

END_S = 10.0
READY_S = 30.0
REST_S = 0.1
SETTLE_S = 5.0
PR_SET_PDEATHSIG = 1  # prctl(2)

_prctl = ctypes.CDLL(None).prctl


class Failed(Exception):
    """A measure that could not be made; the message says what happened."""


def start(command: Sequence[str], log: Path, env: Mapping[str, str] | None = None,
          **options: Any) -> subprocess.Popen[str]:  # fmt: skip
    """Start a process of our own. It gets no Ctrl-C of ours, and ends should we be killed."""
    with log.open("ab") as errors:
        return subprocess.Popen(
            command,
            stderr=errors,
            text=True,
            env=None if env is None else {**os.environ, **env},
            start_new_session=True,
            preexec_fn=lambda: _prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
            **{"stdin": subprocess.DEVNULL, "stdout": errors, **options},
        )


def end(process: subprocess.Popen[str]) -> None:
    """SIGTERM, and SIGKILL where that does not help."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(END_S)


def until(true: Callable[[], bool], process: subprocess.Popen[str], what: str, log: Path) -> None:
    """Wait for something a process does; Failed where it ends or takes too long."""
    deadline = time.monotonic() + READY_S
    while not true():
        if process.poll() is not None or time.monotonic() > deadline:
            raise Failed(f"{what}: {tail(log)}")
        time.sleep(0.01)


def tail(log: Path, lines: int = 4) -> str:
    """The last lines of a log, for a message."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return " | ".join(text.strip().splitlines()[-lines:]) or "no word in its log"


def run(command: Sequence[str], timeout_s: float = 600) -> float:
    """Run a command to its end; its seconds. Its output is read and dropped."""
    began = time.perf_counter()
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{command[0]} took more than {timeout_s:g} s") from None
    took = time.perf_counter() - began
    if done.returncode not in (0, 1):  # 1: grep found nothing
        words = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise Failed(f"{command[0]} failed with {done.returncode}: {words}")
    return took


def read(kind: str, *paths: str, timeout_s: float = 300) -> dict[str, Any]:
    """A reader's figures (see ``reader.py``)."""
    return _figures("phonobench.reader", [kind, *paths], timeout_s, f"a reader of {paths[0]}")


def fetch(*urls: str, timeout_s: float = 300) -> dict[str, Any]:
    """The bare client's figures (see ``client.py``)."""
    return _figures("phonobench.bare_content", urls, timeout_s, "the bare client")


def _figures(module: str, words: Sequence[str], timeout_s: float, who: str) -> dict[str, Any]:
    command = [sys.executable, "-m", module, *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s,
                              check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Failed(f"{who} took more than {timeout_s:g} s") from None
    if done.returncode:
        raise Failed(f"{who} failed: {done.stderr.strip().splitlines()[-1:]}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def unmount(mountpoint: Path, process: subprocess.Popen[str]) -> None:
    """Take a mount down and end its process, also one that hangs."""
    if is_mounted(mountpoint):
        subprocess.run(["fusermount3", "-u", mountpoint], capture_output=True, check=False)
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        end(process)
    if is_mounted(mountpoint):
        subprocess.run(["fusermount3", "-uz", mountpoint], capture_output=True, check=False)


def is_mounted(mountpoint: Path) -> bool:
    """Whether something is mounted there, read without touching the mount itself."""
    lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    return any(line.split(" ")[4] == str(mountpoint) for line in lines)


def forget_pages(folder: Path) -> None:
    """Have the kernel drop the cached pages of all files below, after writing them out."""
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            try:
                os.fsync(file)
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(file)


def memory(pid: int) -> dict[str, int]:
    """Bytes of a process: ``rss`` now and its greatest, ``peak``."""
    fields = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "VmHWM"):
            fields["peak" if name == "VmHWM" else "rss"] = int(value.split()[0]) * 1024
    return fields


def cpu_s(pid: int) -> float:
    """Seconds of CPU a process has used, user and system (fields 14 and 15 of proc_pid_stat(5))."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def settled_cpu_s(pid: int) -> float:
    """``cpu_s`` once the process rests: when it used next to nothing for ``REST_S``; or after
    ``SETTLE_S``."""
    end_s = time.monotonic() + SETTLE_S
    used_s = cpu_s(pid)
    while time.monotonic() < end_s:
        time.sleep(REST_S)
        now_s = cpu_s(pid)
        if now_s - used_s <= REST_S / 10:
            return now_s
        used_s = now_s
    return used_s
