"""A job on workers that have no daemon: they read a month by ``s3://``."""

import signal
from pathlib import Path

import pytest

from phonofs.demo.dataset import demo_account
from tests.s3.conftest import TODAY
from tests.support.doors import PROFILE
from tests.support.jobs import LIMIT_S, Job
from tests.support.mounts import standing, until
from tests.support.s3 import s3_door, wait_for

pytest.importorskip("distributed", reason="distributed is not installed")
pytest.importorskip("pyarrow", reason="pyarrow is not installed")


def test_all_outputs_once_though_the_server_crashes(tmp_path: Path):
    """What was read when it was killed is read again from the next one."""
    account = demo_account(TODAY)
    with standing(account) as stand_in, s3_door(stand_in.service, tmp_path) as door:
        environment = door.endpoint.environment
        aws = {name: value for name, value in environment.items() if name.startswith("AWS_")}
        job = Job(door.daemon, tmp_path, "dask_job.py", **aws)
        job.list("--since", "2026-02", "--until", "2026-02")
        process = job.start("--source", f"s3://{PROFILE}", "--workers", "2")
        until(lambda: job.calls().total() > 5 or process.poll() is not None, LIMIT_S)
        door.daemon.stop(signal.SIGKILL)
        done = len([*job.out.rglob("*.json")])  # some are still being written, by another name
        door.daemon.start(True, *door.words)
        wait_for(door.endpoint)
        job.end(process)
        tree = door.tree
    expected = {
        item.id: item.content.md5
        for key, item in tree.readable.items()
        if key.startswith("2026/2026-02/") and item.mime_type.startswith("audio/")
    }
    assert 0 < done < len(expected)
    assert job.outputs() == expected
    assert job.calls().total() == len(expected)
