"""Suites of others over ``phonofs://``: of fsspec, and of universal_pathlib.

Both make files with names of their own, so a door over a plain folder serves them.
"""

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")

from fsspec.implementations.local import LocalFileSystem  # noqa: E402
from fsspec.tests.abstract import AbstractFixtures, AbstractGetTests  # noqa: E402

from phonofs.spec import PhonofsFileSystem  # noqa: E402
from tests.support.folder_door import FolderDoor, folder_door  # noqa: E402

PATH_TESTS = Path(sys.prefix) / "universal-pathlib-tests/upath"
NO_PATH_TESTS = f"{PATH_TESTS} is not there: contrib/dev/setup could not fetch it"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[FolderDoor]:
    (tmp_path / "served").mkdir()
    with folder_door(tmp_path / "served", tmp_path / "socket") as door:
        yield door


class Filled(PhonofsFileSystem):
    """Makes in the folder that is served what a test of the suite makes by the file system."""

    folder: Path

    def mkdir(self, path, *args, **kwargs):
        (self.folder / path.removeprefix("work/")).mkdir()

    def touch(self, path, *args, **kwargs):
        (self.folder / path.removeprefix("work/")).touch()


class TestGet(AbstractFixtures, AbstractGetTests):
    """What is copied from a file system, by which names."""

    @pytest.fixture
    def fs(self, served):
        made = Filled(socket=str(served.path), skip_instance_cache=True)
        made.folder = served.folder
        return made

    @pytest.fixture
    def fs_path(self):
        return "work"

    @pytest.fixture
    def fs_bulk_operations_scenario_0(self, served, fs_join):
        return self._served(self._bulk_operations_scenario_0, served, fs_join)

    @pytest.fixture
    def fs_glob_edge_cases_files(self, served, fs_join):
        return self._served(self._glob_edge_cases_files, served, fs_join)

    @pytest.fixture
    def fs_dir_and_file_with_same_name_prefix(self, served, fs_join):
        return self._served(self._dir_and_file_with_same_name_prefix, served, fs_join)

    @pytest.fixture
    def fs_10_files_with_hashed_names(self, served, fs_join):
        return self._served(self._10_files_with_hashed_names, served, fs_join)

    def _served(self, scenario, served, join):
        """Make the files of a scenario in the folder that is served; return where it appears."""
        made = scenario(LocalFileSystem(auto_mkdir=True), join, str(served.folder))
        return made.replace(str(served.folder), "work")


if PATH_TESTS.is_dir():
    upath = pytest.importorskip("upath", reason="universal_pathlib is not installed")
    upath.__path__.append(str(PATH_TESTS))
    from upath import UPath
    from upath.tests.cases import JoinablePathTests, NonWritablePathTests, ReadablePathTests

    from phonofs.spec.path import PhonofsPath

    class TestPath(JoinablePathTests, ReadablePathTests, NonWritablePathTests):
        """A path is joined, read, and cannot be written to."""

        @pytest.fixture
        def local_testdir(self, served):
            (served.folder / "top/folder1").mkdir(parents=True)
            for name in ("folder1/file1.txt", "folder1/file2.txt"):
                (served.folder / "top" / name).write_text(Path(name).name)
            for name in ("file1.txt", "file2.txt"):
                (served.folder / "top" / name).write_text("hello world")
            return str(served.folder / "top")

        @pytest.fixture
        def clear_fsspec_memory_cache(self):
            yield
            memory = fsspec.get_filesystem_class("memory")
            memory.store.clear()
            memory.pseudo_dirs[:] = [""]

        @pytest.fixture
        def pathlib_base(self, local_testdir):
            return Path(local_testdir)

        @pytest.fixture(autouse=True)
        def path(self, served, local_testdir):
            self.path = UPath("phonofs://work/top", socket=str(served.path))
            yield
            PhonofsFileSystem.clear_instance_cache()

        def test_is_correct_class(self):
            assert isinstance(self.path, PhonofsPath)
            assert isinstance(pickle.loads(pickle.dumps(self.path)), PhonofsPath)

else:

    @pytest.mark.skip(reason=NO_PATH_TESTS)
    def test_universal_pathlib():
        raise AssertionError
