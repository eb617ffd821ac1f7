"""What tools make of attributes: link counts, and the extended ones that copies keep."""

import json
import os
import shutil
import subprocess

import pytest

from phonofs.fakeservice.account import Account, flat_item
from tests.support.accounts import NOON_MS
from tests.support.mounts import files, mounted, standing

pytestmark = pytest.mark.fuse

LISTED_MAX = 3584
"""Bytes of all attributes that are listed, so that a copy fits into the 4 KiB of ext4."""

MANY = {f"tag{number:03}": "x" * 60 for number in range(90)}
LONG = {"a": "x" * 3400, "b": "y" * 3400, "c": "z"}


def run(*command: object, **more: object) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        **more,
    )
    return done.stdout


def needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


@pytest.fixture(scope="module")
def point(tmp_path_factory):
    """Objects with few tags, with many and with long ones."""
    account = Account(
        [
            flat_item("few", 1000, NOON_MS, tags={"callId": "1", "direction": "inbound"}),
            flat_item("many", 1000, NOON_MS + 1000, tags=MANY),
            flat_item("long", 1000, NOON_MS + 2000, tags=LONG),
            flat_item("name", 1000, NOON_MS + 3000, name="n" * 5000),
        ]
    )
    folder = tmp_path_factory.mktemp("attributes")
    with standing(account) as stand_in, mounted(stand_in.url, folder) as mount:
        yield mount.point


def one(point, id):
    return next(p for p in files(point) if os.getxattr(p, "user.phonofs.id").decode() == id)


# links


def test_folders_have_a_link_count_of_1(point):
    """2 would say that no folder is in it; 1 says that nobody counted."""
    folders = [point, *(path for path in point.rglob("*") if path.is_dir())]
    assert len(folders) == 4
    assert {path.lstat().st_nlink for path in [*folders, *files(point)]} == {1}


def test_a_walker_that_counts_links_finds_every_file(point):
    """Perl's File::Find with the trick of old: two links less are so many folders to come."""
    needs("perl")
    code = (
        "use File::Find; $File::Find::dont_use_nlink = 0; my $n = 0;"
        "find(sub { $n++ if -f $_ }, $ARGV[0]); print $n"
    )
    assert run("perl", "-e", code, point) == "4"


WALKER = """
#include <fts.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/stat.h>
int main(int argc, char **argv) {
    char *paths[] = {argv[1], NULL};
    int folders = 0, others = 0;
    FTS *tree = fts_open(paths, FTS_PHYSICAL | FTS_NOSTAT, NULL);
    for (FTSENT *entry; (entry = fts_read(tree)) != NULL;) {
        if (entry->fts_info == FTS_D) folders++;
        else if (entry->fts_info != FTS_DP) others++;
    }
    printf("%d %d", folders, others);
    return 0;
}
"""


def test_fts_of_the_c_library_walks_all_folders(point, tmp_path):
    """fts(3) with FTS_NOSTAT does the same."""
    needs("cc")
    (tmp_path / "walker.c").write_text(WALKER)
    run("cc", "-o", tmp_path / "walker", tmp_path / "walker.c")
    assert run(tmp_path / "walker", point) == "4 4"


# extended attributes


def test_what_is_listed_is_what_a_copy_keeps(point):
    """Not what moves, and nothing twice; all else that is known answers to its name."""
    path = one(point, "few")
    names = ("id", "region", "type", "state", "checksum", "object_name", "created", "updated")
    tags = ("tag.callId", "tag.direction")
    assert sorted(os.listxattr(path)) == sorted(
        ["user.mime_type", *(f"user.phonofs.{name}" for name in names + tags)]
    )
    assert json.loads(os.getxattr(path, "user.phonofs.json"))["id"] == "few"
    assert os.getxattr(path, "user.phonofs.cached").isdigit()
    assert os.listxattr(point) == os.listxattr(path.parent) == []
    assert json.loads(os.getxattr(point, "user.phonofs.status"))["profile"] == "default"


def test_every_file_and_folder_says_where_it_is(point):
    """``user.phonofs.path``: below the mount point."""
    for path in point.rglob("*"):
        assert os.getxattr(path, "user.phonofs.path").decode() == str(path.relative_to(point))


@pytest.mark.parametrize("id", ["many", "long", "name"])
def test_no_more_is_listed_than_fits(point, id):
    """As many tags as fit; the others answer to their names."""
    path = one(point, id)
    listed = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    assert sum(len(name) + len(value) for name, value in listed.items()) <= LISTED_MAX
    assert listed["user.phonofs.id"] == id.encode()
    tags = sum(".tag." in name for name in listed)
    assert {"many": 25 < tags < 45, "long": tags == 1, "name": True}[id]
    if id == "many":
        assert all(os.getxattr(path, f"user.phonofs.tag.tag{n:03}") == b"x" * 60 for n in range(90))


def test_rsync_copies_attributes_once(point, tmp_path):
    """-X to ext4: everything fits, and what was read meanwhile changes nothing."""
    needs("rsync")
    (tmp_path / "probe").touch()
    try:
        os.setxattr(tmp_path / "probe", "user.probe", b"1")
    except OSError as error:
        pytest.skip(f"{tmp_path} takes no extended attributes: {error.strerror}")
    run("rsync", "-aX", f"{point}/", tmp_path / "copy")
    assert all(len(path.read_bytes()) == 1000 for path in files(point))
    assert run("rsync", "-aXi", f"{point}/", tmp_path / "copy") == ""
