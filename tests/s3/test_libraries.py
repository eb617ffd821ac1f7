"""Libraries of others read by ``s3://``: s3fs, obstore, pyarrow and DuckDB, from both servers."""

import hashlib
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import fsspec
import obstore
import pytest
from obstore.store import S3Store

from tests.s3.calls import Sample
from tests.support.s3 import ACCESS_KEY, REGION, SECRET_KEY, Door, Endpoint, Tree, content

MONTH = "2026/2026-02"


@pytest.fixture(scope="module")
def sample(tree: Tree) -> Sample:
    return Sample.of(tree)


def s3fs_of(endpoint: Endpoint) -> fsspec.AbstractFileSystem:
    """s3fs, without what it remembers of other tests."""
    return fsspec.filesystem(
        "s3", key=ACCESS_KEY, secret=SECRET_KEY, endpoint_url=endpoint.url,
        client_kwargs={"region_name": REGION}, skip_instance_cache=True,
    )  # fmt: skip


@pytest.fixture
def fs(endpoint: Endpoint) -> fsspec.AbstractFileSystem:
    return s3fs_of(endpoint)


def test_s3fs_lists_what_is_there(fs: fsspec.AbstractFileSystem, endpoint: Endpoint, tree: Tree):
    bucket = endpoint.bucket
    assert bucket in fs.ls("")
    assert fs.ls(bucket, detail=False) == [f"{bucket}/2026"]
    found = fs.find(bucket, detail=True)
    assert sorted(found) == sorted(f"{bucket}/{key}" for key in tree.keys)
    for key, item in tree.items.items():
        info = found[f"{bucket}/{key}"]
        assert (info["size"], info["ETag"]) == (item.content.size, item.etag)
        assert (info["StorageClass"] == "GLACIER") == (item.state == "ARCHIVED")
    audio = [f"{bucket}/{key}" for key in tree.keys if key.startswith(MONTH) and ".mp3" in key]
    assert fs.glob(f"{bucket}/{MONTH}/*/*.mp3") == sorted(audio)
    assert fs.du(f"{bucket}/{MONTH}") == sum(
        item.content.size for key, item in tree.items.items() if key.startswith(MONTH)
    )
    names = {name for _, _, names in fs.walk(f"{bucket}/2026/2026-03") for name in names}
    assert names == {key.rpartition("/")[2] for key in tree.keys if key.startswith("2026/2026-03")}


def test_s3fs_reads_what_is_there(
    fs: fsspec.AbstractFileSystem, endpoint: Endpoint, tree: Tree, sample: Sample
):
    below = {
        f"{endpoint.bucket}/{key}": content(item)
        for key, item in tree.readable.items()
        if key.startswith(MONTH)
    }
    assert fs.cat(list(below)) == below
    path, data = f"{endpoint.bucket}/{sample.recording}", content(tree.items[sample.recording])
    assert fs.cat_file(path, start=5, end=100) == data[5:100]
    assert fs.cat_ranges([path, path], [0, -10], [10, None]) == [data[:10], data[-10:]]
    assert (fs.head(path, 7), fs.tail(path, 7)) == (data[:7], data[-7:])
    with fs.open(path, "rb", block_size=8192) as file:
        file.seek(-9, 2)
        assert file.read() == data[-9:]
        file.seek(4)
        assert (file.read(12), file.size) == (data[4:16], len(data))


def test_s3fs_tells_files_folders_and_nothing_apart(
    fs: fsspec.AbstractFileSystem, endpoint: Endpoint, sample: Sample
):
    path, folder = f"{endpoint.bucket}/{sample.recording}", f"{endpoint.bucket}/{sample.folder}"
    assert (fs.isfile(path), fs.isdir(path), fs.exists(path)) == (True, False, True)
    assert (fs.isfile(folder), fs.isdir(folder), fs.exists(folder)) == (False, True, True)
    none = f"{folder}/none.mp3"
    assert (fs.isfile(none), fs.isdir(none), fs.exists(none)) == (False, False, False)
    for ask in (fs.info, fs.cat_file, fs.ls):
        with pytest.raises(FileNotFoundError):
            ask(none)


def test_s3fs_is_told_that_it_is_archived_and_cannot_write(door: Door, sample: Sample):
    fs, bucket = s3fs_of(door.endpoint), door.endpoint.bucket
    with pytest.raises(OSError, match="restore"):
        fs.cat_file(f"{bucket}/{sample.archived}")
    for change in (
        lambda: fs.pipe_file(f"{bucket}/new", b"new"),
        lambda: fs.rm_file(f"{bucket}/{sample.recording}"),
        lambda: fs.cp_file(f"{bucket}/{sample.recording}", f"{bucket}/new"),
        lambda: fs.mkdir("another"),
    ):
        with pytest.raises(OSError, match="read-only"):
            change()


@pytest.fixture
def store(endpoint: Endpoint) -> S3Store:
    return S3Store(
        endpoint.bucket, endpoint=endpoint.url, region=REGION, access_key_id=ACCESS_KEY,
        secret_access_key=SECRET_KEY, virtual_hosted_style_request=False,
        client_options={"allow_http": True}, retry_config={"max_retries": 0},
    )  # fmt: skip


def test_obstore_reads_what_is_there(store: S3Store, tree: Tree, sample: Sample):
    listed = [each for some in obstore.list(store) for each in some]
    assert [(each["path"], each["size"], each["e_tag"]) for each in listed] == [
        (key, item.content.size, item.etag) for key, item in tree.items.items()
    ]
    offset = [each for some in obstore.list(store, offset=tree.keys[300]) for each in some]
    assert [each["path"] for each in offset] == tree.keys[301:]
    level = obstore.list_with_delimiter(store, "2026")
    assert level["common_prefixes"] == [f"2026/2026-0{month}" for month in (1, 2, 3)]
    for key in (sample.recording, sample.awkward, sample.parts):
        data = content(tree.items[key])
        assert bytes(obstore.get(store, key).bytes()) == data
        assert obstore.head(store, key)["size"] == len(data)
    data = content(tree.items[sample.recording])
    assert bytes(obstore.get_range(store, sample.recording, start=5, end=50)) == data[5:50]
    pieces = obstore.get_ranges(store, sample.recording, starts=[0, 9000], ends=[10, 9100])
    assert [bytes(piece) for piece in pieces] == [data[:10], data[9000:9100]]
    tail = obstore.get(store, sample.recording, options={"range": {"suffix": 11}})
    assert bytes(tail.bytes()) == data[-11:]


def test_obstore_asks_for_conditions(store: S3Store, sample: Sample):
    with pytest.raises(obstore.exceptions.NotModifiedError):
        obstore.get(store, sample.recording, options={"if_none_match": sample.etag})
    with pytest.raises(obstore.exceptions.PreconditionError):
        obstore.get(store, sample.recording, options={"if_match": f'"{"0" * 32}"'})
    with pytest.raises(FileNotFoundError):
        obstore.get(store, f"{sample.folder}/none")


def test_obstore_signs_urls(store: S3Store, tree: Tree, sample: Sample):
    """What it made is asked for by nobody that knows a key."""
    url = obstore.sign(store, "GET", sample.awkward, timedelta(minutes=1))
    with urlopen(url, timeout=30) as answer:
        assert answer.read() == content(tree.items[sample.awkward])


def arrow_of(endpoint: Endpoint) -> Any:
    """pyarrow's own client, in C++."""
    fs = pytest.importorskip("pyarrow.fs", reason="pyarrow is not installed")
    return fs.S3FileSystem(
        access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION, scheme="http",
        endpoint_override=urlsplit(endpoint.url).netloc,
    )  # fmt: skip


def test_pyarrow_lists_and_reads(endpoint: Endpoint, tree: Tree, sample: Sample):
    arrow = arrow_of(endpoint)
    from pyarrow import fs

    bucket = endpoint.bucket
    infos = arrow.get_file_info(fs.FileSelector(bucket, recursive=True))
    sizes = {info.path: info.size for info in infos if info.type is fs.FileType.File}
    assert sizes == {f"{bucket}/{key}": item.content.size for key, item in tree.items.items()}
    folders = {info.path for info in infos if info.type is fs.FileType.Directory}
    assert f"{bucket}/{sample.folder}" in folders
    data = content(tree.items[sample.recording])
    with arrow.open_input_file(f"{bucket}/{sample.recording}") as file:
        assert file.size() == len(data)
        assert file.read_at(100, 50) == data[50:150]
        file.seek(len(data) - 5)
        assert file.read() == data[-5:]
    with arrow.open_input_stream(f"{bucket}/{sample.awkward}") as stream:
        assert stream.read() == content(tree.items[sample.awkward])
    kinds = arrow.get_file_info(
        [f"{bucket}/{path}" for path in (sample.recording, sample.folder, "none")]
    )
    assert [info.type.name for info in kinds] == ["File", "Directory", "NotFound"]


def test_pyarrow_makes_a_dataset_of_the_lists_of_the_views(door: Door, tree: Tree):
    """All objects of some days, without a byte of content."""
    arrow, bucket = arrow_of(door.endpoint), door.endpoint.bucket
    from pyarrow import dataset, fs

    days = [f"2026-02-{day:02d}" for day in (10, 11, 12)]
    paths = [f"{bucket}/.views/by-day/{day}/calls.csv" for day in days]
    rows = dataset.dataset(paths, filesystem=arrow, format="csv").to_table(columns=["id"])
    assert rows.num_rows == sum(any(f"/{day}/" in key for day in days) for key in tree.keys) > 0
    infos = arrow.get_file_info(fs.FileSelector(f"{bucket}/.views/by-day/2026-02-10"))
    assert f"{bucket}/.views/by-day/2026-02-10/calls.csv" in [info.path for info in infos]


def test_polars_reads_by_its_own_client(door: Door, tree: Tree):
    polars = pytest.importorskip("polars", reason="Polars is not installed")
    options = {
        "aws_endpoint_url": door.endpoint.url, "aws_allow_http": "true", "aws_region": REGION,
        "aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY,
    }  # fmt: skip
    path = f"s3://{door.endpoint.bucket}/.views/by-day/2026-02-1*/calls.csv"
    frame = polars.scan_csv(path, storage_options=options, infer_schema=False).collect()
    assert sorted(frame["path"]) == [key for key in tree.keys if "/2026-02-1" in key]


def test_duckdb_reads_by_its_own_client(endpoint: Endpoint, tree: Tree):
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed")
    with duckdb.connect() as connection:
        try:
            connection.sql("LOAD httpfs")
        except duckdb.Error:
            pytest.skip("DuckDB's extension httpfs is not installed")
        connection.sql(
            f"CREATE SECRET (TYPE s3, KEY_ID '{ACCESS_KEY}', SECRET '{SECRET_KEY}', USE_SSL false,"
            f" ENDPOINT '{urlsplit(endpoint.url).netloc}', URL_STYLE 'path', REGION '{REGION}')"
        )
        pattern = f"s3://{endpoint.bucket}/{MONTH}/*/*_transcription_*.json"
        rows = connection.sql(f"SELECT filename, md5(content) FROM read_blob('{pattern}')")
        found = {name.split("/", 3)[3]: digest for name, digest in rows.fetchall()}
    assert found == {
        key: hashlib.md5(content(item)).hexdigest()
        for key, item in tree.readable.items()
        if key.startswith(MONTH) and "_transcription_" in key
    }
