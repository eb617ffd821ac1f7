"""Real tools over a real mount of the made-up account; every byte compared with the service's."""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile

import pytest

from tests.support.accounts import content_of
from tests.support.demo_mount import Demo
from tests.support.mounts import files

pytestmark = pytest.mark.fuse


def run(*command: object, **options) -> str:
    """A tool's output; the test fails when the tool does."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=120, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def needs(tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")


def readable(demo: Demo) -> list:
    return [
        path for path in files(demo.point) if os.getxattr(path, "user.phonofs.state") != b"ARCHIVED"
    ]


def served(demo: Demo, path) -> bytes:
    """What the service has for the file, by the id in its attribute."""
    return content_of(demo.service, os.getxattr(path, "user.phonofs.id").decode())


@pytest.fixture(scope="module")
def plain(demo, tmp_path_factory):
    """A plain folder with the same files, made from what the service serves."""
    folder = tmp_path_factory.mktemp("plain")
    for path in readable(demo):
        copy = folder / path.relative_to(demo.point)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(served(demo, path))
        os.utime(copy, ns=(path.stat().st_mtime_ns,) * 2)
    return folder


def test_find_sees_every_object_that_is_shown(demo):
    """One file for each available or archived object, none for the others."""
    shown = [i for i in demo.service.account if i.state in ("AVAILABLE", "ARCHIVED")]
    found = run("find", demo.point, "-type", "f").splitlines()
    assert len(found) == len(shown) > 250


def test_sha256sum_agrees_with_the_service(demo):
    """Every byte of every readable file is the service's."""
    paths = readable(demo)
    sums = run("sha256sum", *paths).splitlines()
    for path, line in zip(paths, sums, strict=True):
        assert line.split()[0] == hashlib.sha256(served(demo, path)).hexdigest()


def test_cp_copies_every_byte(demo, tmp_path):
    """`cp -r` of a month is the same month."""
    month = readable(demo)[-1].parent.parent
    run("cp", "-r", month, tmp_path / "copy")
    for path in files(month):
        copy = tmp_path / "copy" / path.relative_to(month)
        assert copy.read_bytes() == served(demo, path)


@pytest.mark.promise("right-bytes-or-error")
def test_rsync_finds_nothing_to_do(demo, plain):
    """`rsync -c` compares sizes and checksums of all files and lists no difference."""
    needs("rsync")
    wanted = "\n".join(str(p.relative_to(demo.point)) for p in readable(demo))
    out = run("rsync", "-rcni", "--files-from=-", f"{plain}/", f"{demo.point}/", input=wanted)
    assert [line for line in out.splitlines() if line.startswith((">f", "<f"))] == []


def test_tar_archives_what_is_there(demo, tmp_path):
    """The members of an archive have the files' bytes, sizes and times."""
    paths = readable(demo)[:40]
    archive = tmp_path / "a.tar"
    run("tar", "cf", archive, "-C", demo.point, *[p.relative_to(demo.point) for p in paths])
    with tarfile.open(archive) as tar:
        for path, member in zip(paths, tar.getmembers(), strict=True):
            assert member.mtime == int(path.stat().st_mtime)
            assert tar.extractfile(member).read() == served(demo, path)


def test_grep_finds_words_of_a_transcript(demo):
    """`grep -r` over the tree finds what transcripts say."""
    path = demo.one("*_transcription_*.json")
    text = json.loads(path.read_bytes())
    word = max((w for w in json.dumps(text).split('"') if w.replace(" ", "").isalpha()), key=len)
    assert str(path) in run("grep", "-rl", "--", word, path.parent).splitlines()


def test_ffprobe_gives_the_duration_of_the_record(demo):
    """Audio is real: its duration is the record's, within a frame."""
    needs("ffprobe")
    for pattern in ("*_callrecording_*.mp3", "*_callcenterrecording_*.mp3", "*_voicemail_*.mp3"):
        path = next(p for p in sorted(demo.point.rglob(pattern)) if p in readable(demo))
        said = run(
            "ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", path
        )
        recorded = int(os.getxattr(path, "user.phonofs.tag.duration")) / 1000
        assert float(said) == pytest.approx(recorded, abs=0.2)


def test_ffmpeg_decodes_and_seeks(demo, plain):
    """A decode is free of errors, and a seek gives what it gives on the plain file."""
    needs("ffmpeg")
    wav = next(p for p in readable(demo) if p.suffix == ".wav")
    mp3 = next(p for p in readable(demo) if p.suffix == ".mp3")
    for path in (wav, mp3):
        run("ffmpeg", "-v", "error", "-xerror", "-i", path, "-f", "null", "-")
        ends = [
            run("ffmpeg", "-v", "error", "-ss", "1", "-i", where, "-t", "1", "-f", "md5", "-")
            for where in (path, plain / path.relative_to(demo.point))
        ]
        assert ends[0] == ends[1]


def test_getfattr_shows_the_record(demo):
    """The attributes of the contract, with the values of the record."""
    needs("getfattr")
    path = demo.one("*_callrecording_*.mp3")
    shown = run("getfattr", "-d", "--absolute-names", path)
    item = demo.service.account.item("us-east", os.getxattr(path, "user.phonofs.id").decode())
    assert f'user.phonofs.type="{item.type}"' in shown
    assert f'user.phonofs.checksum="{item.content.md5}"' in shown
    for name in ("region", "state", "object_name", "created", "updated", "tag.callId"):
        assert f"user.phonofs.{name}=" in shown
    assert 'user.mime_type="audio/mpeg"' in shown
    for name in ("json", "cached", "path"):  # those are not listed: a copy shall not keep them
        assert f"user.phonofs.{name}=" not in shown
        assert f"user.phonofs.{name}=" in run("getfattr", "-n", f"user.phonofs.{name}", path)
    assert json.loads(os.getxattr(path, "user.phonofs.json"))["id"] == item.id


def test_df_shows_a_full_read_only_file_system(demo):
    """`df` answers from memory: the bytes of all objects, nothing free."""
    files(demo.point)
    out = run("df", "--output=size,avail,fstype", "-B1", demo.point).splitlines()[1].split()
    sizes = [p.stat().st_size for p in files(demo.point)]
    assert int(out[0]) == -(-sum(sizes) // 4096) * 4096
    assert out[1:] == ["0", "fuse.phonofs"]


def test_file_knows_what_it_is(demo):
    """`file` recognises the formats by their first bytes."""
    needs("file")
    assert "audio" in run("file", "-b", "--mime-type", demo.one("*_voicecommentrecording_*.wav"))
    video = next(p for p in readable(demo) if p.suffix == ".mp4")
    assert run("file", "-b", "--mime-type", video).strip() == "video/mp4"
