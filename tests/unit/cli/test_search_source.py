"""What ``find`` and ``manifest`` ask of a mount: whole requests, whatever the paths look like."""

import json

import pytest

from phonofs.cli.report import report
from phonofs.cli.search_source import MountSource, checked
from phonofs.control.server import REQUEST_MAX
from phonofs.errors import UsageError
from phonofs.search.options import condition_of


def test_paths_fit_into_requests_whatever_letters_they_have(monkeypatch):
    paths = [f"2026/2026-11/2026-11-17/{number:03}{'Ж' * 120}.mp3" for number in range(300)]
    requests: list[dict] = []

    def asked(self: MountSource, request: dict) -> list:
        requests.append(request)
        return []

    monkeypatch.setattr(MountSource, "_results", asked)
    assert list(MountSource("/m").files(paths)) == []
    assert [path for request in requests for path in request["paths"]] == paths
    assert max(len(json.dumps(request)) for request in requests) < REQUEST_MAX
    assert len(requests) < 10


@pytest.mark.parametrize("path", ["2026/\udcff", "2026/" * 1000])
def test_a_path_that_no_file_can_have_is_refused(path):
    with pytest.raises(UsageError):
        checked(path)


@pytest.mark.parametrize(
    "asked", [{"agent": "a\udcff"}, {"types": ["\udcff"]}, {"tags": ["a=\udcff"]}]
)
def test_an_option_that_is_not_utf_8_is_refused(asked):
    with pytest.raises(UsageError, match="UTF-8"):
        condition_of(**asked)


def test_an_error_that_names_a_hostile_path_is_harmless(capsys):
    assert report(UsageError("/tmp/\x1b[2Jx\n is not in /m")) == 1
    assert capsys.readouterr().err == "phonofs: /tmp/?[2Jx? is not in /m\n"
