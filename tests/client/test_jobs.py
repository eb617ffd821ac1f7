"""The recipes of contrib/jobs, over the made-up account, with an engine that hashes."""

import importlib.util
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from phonofs.demo.dataset import demo_account
from phonofs.fakeservice.account import change, flat_item
from tests.support.doors import PROFILE, served
from tests.support.folder_door import folder_door
from tests.support.jobs import JOBS, LIMIT_S, Job
from tests.support.mounts import phonofs, standing, until
from tests.support.programs import ServedAccount, as_programs_of

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
pytest.importorskip("pyarrow", reason="pyarrow is not installed")


def installed(name: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(name) is None
    return pytest.mark.skipif(
        missing, reason=f"{name} is not installed; contrib/test --long brings it"
    )


RECIPES = [
    pytest.param("dask_job.py", marks=installed("distributed")),
    pytest.param("ray_job.py", marks=[pytest.mark.slow, installed("ray")]),
]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[ServedAccount]:
    """A daemon of the test's own, since the account changes; it sees that within a second."""
    with (
        standing(demo_account(datetime(2026, 3, 2, tzinfo=UTC).date())) as stand_in,
        served(stand_in.url, tmp_path, poll_interval="1s") as daemon,
        as_programs_of(daemon),
    ):
        yield ServedAccount(daemon, stand_in.service)


@pytest.fixture(params=RECIPES)
def job(demo: ServedAccount, tmp_path: Path, request: pytest.FixtureRequest) -> Job:
    made = Job(demo.daemon, tmp_path, request.param)
    made.list()
    return made


def expected(demo: ServedAccount) -> dict[str, str]:
    return {item.id: item.content.md5 for item in demo.items("audio/")}


def test_all_outputs_once_though_a_worker_is_killed(demo: ServedAccount, job: Job):
    """What the dead worker had begun is done by another one."""
    job.run(fail="kill")
    assert job.has_failed()
    assert job.outputs() == expected(demo) != {}
    again = job.calls().total() - len(expected(demo))
    assert 0 <= again <= 1  # the dead one had noted it, and not yet written its output


def test_a_job_that_was_killed_goes_on(demo: ServedAccount, job: Job):
    """No recording is lost, and none that was done is done again."""
    process = job.start(fail="hang")
    until(lambda: job.has_failed() or process.poll() is not None, LIMIT_S)
    job.kill(process)
    done = job.outputs()
    assert 0 < len(done) < len(expected(demo))
    before = job.calls()
    job.run()
    assert job.outputs() == expected(demo)
    assert not {digest for digest in done.values() if job.calls()[digest] != before[digest]}


def test_a_job_is_kept_up_to_date_and_forgets_what_was_withdrawn(demo: ServedAccount, job: Job):
    """One new recording is one call; an output goes with its recording, and no other does."""
    job.run()
    before = job.calls().total()
    gone, replaced, archived, *_ = demo.items("audio/")
    now_ms = time.time_ns() // 1_000_000
    account = demo.service.account
    change(account, gone.region, gone.id, now_ms, state="REVOKED")
    change(account, archived.region, archived.id, now_ms, state="ARCHIVED")
    new = flat_item("new", 5000, replaced.created_ms + 1000, updated_ms=now_ms)
    account.put(new)
    content = flat_item("other", 6000, 0).content
    change(account, replaced.region, replaced.id, now_ms, content=content)
    until(lambda: is_known(demo, "new"))
    job.list()
    assert job.run("--prune").startswith("2 outputs")
    left = expected(demo) | {archived.id: archived.content.md5}
    assert job.outputs() == left
    assert left[replaced.id] == content.md5
    assert gone.id not in left
    assert job.calls().total() == before + 2


def is_known(demo: ServedAccount, id: str) -> bool:
    done = phonofs(demo.daemon, "find", "--profile", PROFILE, "--call", id, "--offline")
    return bool(done.stdout.strip())


def test_a_recording_that_fails_does_not_hold_up_the_rest_of_its_batch(tmp_path, monkeypatch):
    """The batch fails once all others are made; one that is absent is no failure."""
    monkeypatch.syspath_prepend(JOBS)
    from outputs import Outputs

    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").symlink_to("a")  # ELOOP
    (tree / "b").write_bytes(b"bytes")
    rows = [
        {"url": f"phonofs://work/{id}", "path": "2024-09-17/x", "region": "r", "id": id}
        | {"fingerprint": id}
        for id in "abc"
    ]
    place = Outputs(str(tmp_path / "out"), "job")
    with folder_door(tree, tmp_path / "s") as door:
        monkeypatch.setitem(fsspec.config.conf, "phonofs", {"socket": str(door.path)})
        with pytest.raises(OSError, match="symbolic links"):
            place.make(rows, lambda audio: audio.read().decode())
        assert [place.has(row) for row in rows] == [False, True, False]
        assert place.make(rows[1:], lambda audio: None) == [True]
