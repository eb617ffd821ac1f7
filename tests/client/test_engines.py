"""Engines of others read the made-up account by ``phonofs://``, and get the service's bytes."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")

from tests.support.doors import PROFILE  # noqa: E402
from tests.support.programs import ServedAccount  # noqa: E402

ROOT = f"phonofs://{PROFILE}"
DAY = "2026/2026-03/2026-03-01"


def transcripts() -> list[str]:
    return fsspec.filesystem("phonofs").glob(f"{PROFILE}/2026/2026-03/*/*_transcription_*.json")


def spoken(path: str) -> str:
    """Return what is said in a transcript, read by fsspec alone."""
    return json.loads(fsspec.filesystem("phonofs").cat(path))["transcript"]


def test_every_byte_is_the_services(demo: ServedAccount):
    """All that can be read, by one call; what is archived says so."""
    fs = fsspec.filesystem("phonofs")
    infos = fs.find(PROFILE, detail=True)
    shown = ("AVAILABLE", "ARCHIVED")
    items = {item.id: item for item in demo.service.account if item.state in shown}
    assert sorted(info["id"] for info in infos.values()) == sorted(items)
    contents = fs.cat(list(infos), on_error="return")
    for path, content in contents.items():
        item = items[infos[path]["id"]]
        if item.state == "ARCHIVED":
            assert "phonofs restore" in str(content)
        else:
            assert hashlib.md5(content).hexdigest() == item.content.md5, path


def test_an_object_by_its_identifier_is_one_request(demo: ServedAccount):
    """Not the listing of its day."""
    item = demo.items("audio/")[0]
    url = f"{ROOT}/.id/{item.region}/{item.id}.mp3"
    assert fsspec.filesystem("phonofs").cat(url) == item.content.read(0, item.content.size)


def test_texts_of_the_views_have_their_size_when_it_is_asked_for(demo: ServedAccount):
    """A listing does not make them; ``info``, ``du`` and an open file do."""
    fs = fsspec.filesystem("phonofs")
    folder = f"{PROFILE}/.views/text/2026/2026-03/2026-03-01"
    paths = fs.find(folder)
    assert {Path(path).suffix for path in paths} == {".txt"}
    listed = fs.find(folder, detail=True)
    sizes = fs.du(folder, total=False)
    contents = fs.cat(paths)
    for path, content in contents.items():
        assert sizes[path] == fs.info(path)["size"] == len(content) > 0
        assert listed[path]["size"] in (None, len(content))
        with fs.open(path) as file:
            assert (file.size, file.read()) == (len(content), content)


def test_pandas_reads_json(demo: ServedAccount):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    path = transcripts()[0]
    series = pandas.read_json(f"phonofs://{path}", typ="series")
    assert series["transcript"] == spoken(path)
    table = pandas.read_csv(f"{ROOT}/.views/by-day/2026-03-01/calls.csv")
    assert len(table) == len(fsspec.filesystem("phonofs").ls(f"{PROFILE}/{DAY}"))


def test_pyarrow_takes_the_file_system_and_the_url(demo: ServedAccount):
    dataset = pytest.importorskip("pyarrow.dataset", reason="pyarrow is not installed")
    from pyarrow import fs as arrow

    ours = fsspec.filesystem("phonofs")
    here = arrow.PyFileSystem(arrow.FSSpecHandler(ours))
    [first, *_] = transcripts()
    assert here.open_input_file(first).read() == ours.cat(first)
    assert here.get_file_info(f"{PROFILE}/none").type is arrow.FileType.NotFound
    found, path = arrow.FileSystem.from_uri(f"fsspec+{ROOT}/{DAY}")
    infos = found.get_file_info(arrow.FileSelector(path))
    assert sorted(Path(info.path).name for info in infos) == sorted(
        Path(name).name for name in ours.ls(f"{PROFILE}/{DAY}", detail=False)
    )
    lists = ours.glob(f"{PROFILE}/.views/by-day/2026-03-0*/calls.csv")
    rows = dataset.dataset(lists, filesystem=ours, format="csv").to_table(columns=["id", "bytes"])
    days = [path.split("/")[-2] for path in lists]
    assert rows.num_rows == sum(len(ours.ls(f"{PROFILE}/2026/2026-03/{day}")) for day in days)


def test_polars_reads_a_list_of_a_day(demo: ServedAccount):
    polars = pytest.importorskip("polars", reason="Polars is not installed")
    with fsspec.open(f"{ROOT}/.views/by-day/2026-03-01/calls.csv") as file:
        frame = polars.read_csv(file, infer_schema=False)
    names = fsspec.filesystem("phonofs").ls(f"{PROFILE}/{DAY}", detail=False)
    assert sorted(frame["path"]) == sorted(name.removeprefix(f"{PROFILE}/") for name in names)


def test_duckdb_reads_many_files_in_threads(demo: ServedAccount):
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed")
    with duckdb.connect() as connection:
        connection.register_filesystem(fsspec.filesystem("phonofs"))
        connection.sql("SET threads = 4")
        pattern = f"{ROOT}/2026/2026-03/*/*_transcription_*.json"
        rows = connection.sql(
            f"SELECT filename, transcript FROM read_json_auto('{pattern}', filename = true)"
        ).fetchall()
    assert len(rows) == len(transcripts()) > 1
    for name, transcript in rows:
        assert transcript == spoken(name.removeprefix("phonofs://"))


@pytest.mark.slow
def test_ray_reads_binary_files(demo: ServedAccount):
    """It strips the protocol of a URL, so the profile has to be a part of the path."""
    ray = pytest.importorskip("ray", reason="Ray is not installed; contrib/test --long brings it")
    program = """
import hashlib, json, sys, fsspec, ray
ray.init(num_cpus=2, log_to_driver=False)
found = ray.data.read_binary_files(json.loads(sys.argv[1]), filesystem=fsspec.filesystem("phonofs"))
print(json.dumps(sorted(hashlib.md5(row["bytes"]).hexdigest() for row in found.iter_rows())))
"""
    assert ray.__version__
    fs = fsspec.filesystem("phonofs")
    paths = transcripts()
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps([f"phonofs://{path}" for path in paths])],
        env=os.environ | {"RAY_AUTH_MODE": "disabled"}, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == sorted(hashlib.md5(content).hexdigest() for content in fs.cat(paths).values())
