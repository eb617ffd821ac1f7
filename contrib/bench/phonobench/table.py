"""The rows: what is measured, in which unit, and what the target is. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from phonobench.things import SPANS

BIG = 512
"""The size of ``big``, in MiB."""
SLOW_STARTS = (1, 4)
"""The windows in MiB up to which connections that start slowly grow."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    key     the name its figures are kept under
    title   what it says
    unit    ``MB/s``, ``s``, ``round trips``, ``IOPS``, ``MiB``, or nothing for a plain number
    more    whether more is better (a speed) or less (a time)
    target  the least ratio to the better rclone
    against the least ratio to one mode of rclone, where that has a target of its own
    most    an absolute: our figure must be at most this
    least   an absolute: our figure must be at least this
    floor   ``--before``: the row is worse if the ratios of all rounds lie below this
    peak    the greatest of all rounds counts, not their median
    """

    key: str
    title: str
    unit: str
    more: bool = False
    target: float | None = None
    against: Mapping[str, float] = field(default_factory=dict)
    most: float | None = None
    least: float | None = None
    floor: float = 0.95
    peak: bool = False


MEMORY_FLOOR = 0.99
"""Memory must not be above that of before; two copies of one checkout differ by 0.3 %."""

CPU = "CPU of the process for it"

ROWS = (
    Row("cold", "512 MiB, cold, sequential, 0 ms", "MB/s", True,
        against={"rclone full": 1.7, "rclone off": 1.0}),
    Row("cold-cpu", CPU, "s"),
    Row("hot", "the same again in the same mount", "MB/s", True, target=5.0),
    Row("hot-cpu", CPU, "s"),
    Row("warm", "after a remount, from the disk cache", "MB/s", True, target=2.5),
    Row("warm-cpu", CPU, "s"),
    Row("disk", "the same with the disk cold", "MB/s", True, target=2.0),
    Row("disk-cpu", CPU, "s"),
    Row("fio1", "random 4 KiB from the disk cache, 1 job", "IOPS", True, target=1.0),
    Row("fio16", "the same, 16 jobs", "IOPS", True, target=1.0),
    Row("limited", "{limited}, cold, 50 ms, 40 MB/s a connection", "MB/s", True, target=3.0),
    Row("limited-cpu", CPU, "s"),
    Row("first", "first 64 KiB after open, 50 ms", "round trips", most=1.2),
    Row("last", "then the last 64 KiB", "round trips", most=1.2),
    Row("random", "then random seeks (the median of 5)", "round trips", most=1.2),
    Row("worst", "the slowest of the 5", "round trips", most=1.2),
    Row("grep", "{small}, cold, 50 ms: grep -r", "s", target=12.0),
    Row("grep-cpu", CPU, "s"),
    Row("cat", "cat *", "s", target=12.0),
    Row("cp", "cp -r", "s", target=12.0),
    Row("again", "grep -r, warm after a remount", "s", target=2.0),
    Row("again-cpu", CPU, "s"),
    Row("ls", "ls of 10,000, cold, 0 ms", "s"),
    Row("ls-cpu", CPU, "s"),
    Row("ls-l", "ls -l of 10,000 after ls", "s", target=5.0),
    Row("ls-l-cpu", CPU, "s"),
    Row("eight", "8 readers of 8 files, 50 ms", "MB/s", True, against={"rclone off": 0.95}),
    Row("share8", "the slowest one's part of its share", "", True, least=0.8),
    Row("sent8", "bytes fetched, as a multiple", "", most=1.02),
    Row("one", "8 readers of one file, 50 ms", "MB/s", True, against={"rclone full": 0.95}),
    Row("share1", "the slowest one's part of its share", "", True, least=0.5),
    Row("sent1", "bytes fetched, as a multiple", "", most=1.02),
    *(Row(f"at{ms}-{size}", f"{size} MiB, cold, {ms} ms", "s", target=1 / 1.05 if ms else None)
      for ms in (0, 50, 150) for size in (*SPANS, BIG)),
    *(Row(f"trips{ms}-{size}", f"{size} MiB, {ms} ms, but for 10 ms and 1.3 × its time at 0 ms",
          "round trips", most=1.0)
      for ms in (50, 150) for size in (*SPANS, BIG)),
    *(Row(f"slow{window}-{size}", f"{size} MiB, 50 ms, a slow start to {window} MiB a round trip",
          "MB/s", True, target=1.0 if size < 32 else 2.0)
      for window in SLOW_STARTS for size in SPANS),
    Row("crowd", "32 readers of 32 files of 8 MiB, 50 ms", "MB/s", True,
        against={"rclone off": 0.95}),
    Row("worst32", "the slowest one's time, as a multiple of the median", "", most=2.0),
    Row("peak", "most memory of the process", "MiB", most=120.0, target=1.0,
        floor=MEMORY_FLOOR, peak=True),
)  # fmt: skip
"""What ``contrib/bench/run`` measures."""

SCALE = (
    Row("mount", "mount to first ls of the root", "s"),
    Row("ls-l", "ls -l of a day of 10,000, warm", "s"),
    Row("find", "find over all of it", "s"),
    Row("poll", "following, nothing changes: CPU a poll", "ms"),
    Row("rss", "memory after that", "MiB", floor=MEMORY_FLOOR),
    Row("peak", "most memory of the process", "MiB", floor=MEMORY_FLOOR),
    Row("first", "find over 100,000 files, first", "s"),
    Row("again", "the same, again", "s"),
    Row("remounted", "the same, remounted", "s"),
    Row("listing", "ls of a day of 10,000, cold, 50 ms", "s"),
    Row("listing-cpu", CPU, "s"),
    Row("untold", "the same, without a total", "s"),
    Row("untold-cpu", CPU, "s"),
)
"""What ``contrib/bench/scale --before`` measures."""
