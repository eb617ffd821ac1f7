"""A job on workers that have no daemon: they read a month by ``s3://``."""

import importlib.util
import signal
from pathlib import Path

import fsspec
import pytest

from phonofs.demo.dataset import demo_account
from tests.s3.calls import Sample
from tests.s3.conftest import TODAY
from tests.support.doors import PROFILE
from tests.support.jobs import JOBS, LIMIT_S, Job
from tests.support.mounts import standing, until
from tests.support.s3 import Door, s3_door, wait_for

pytest.importorskip("pyarrow", reason="pyarrow is not installed")
NO_DASK = importlib.util.find_spec("distributed") is None


@pytest.mark.skipif(NO_DASK, reason="distributed is not installed")
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


def test_what_is_archived_or_withdrawn_is_absent_and_all_else_a_failure(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(JOBS)
    from outputs import Outputs

    for name, value in door.endpoint.environment.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    fsspec.filesystem("s3", skip_instance_cache=True).clear_instance_cache()
    sample = Sample.of(door.tree)
    paths = [sample.recording, sample.archived, f"{sample.folder}/gone.mp3"]
    rows = [
        {"path": path, "region": "r", "id": str(number), "fingerprint": "f"}
        for number, path in enumerate(paths)
    ]
    place = Outputs(str(tmp_path), "job")

    def length(audio) -> int:
        return len(audio.read())

    assert place.make(rows, length, f"s3://{PROFILE}") == [False, True, True]
    assert [place.has(row) for row in rows] == [True, False, False]
    with pytest.raises(OSError, match="bucket"):
        place.make(rows, length, "s3://another")
