"""The page of an export: nothing that a caller chose is more than text, and nothing runs."""

import html.parser
from pathlib import Path

import pytest

from phonofs.export import lists, page
from tests.support.export_world import DAY, Account, export

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202e\x1b[2J"


class Elements(html.parser.HTMLParser):
    """Collects elements and attributes, and the text outside of the style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.named: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.named |= {name for name, _ in attrs}
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def read(path: Path) -> Elements:
    return Elements(path.read_text())


@pytest.fixture
def account() -> Account:
    account = Account()
    tags = {"agentName": HOSTILE, "callerName": HOSTILE, "startTime": "1772452800000"}
    account.add("00000000", tags=tags, name=HOSTILE, type="callrecording")
    said = f"[00:04] {HOSTILE}: hello {HOSTILE}\n[1:02:03] Ann: bye\nno time\n"
    account.texts_by_path[f"{DAY}/00000000.txt"] = ("00000000.mp3", said.encode())
    account.texts_by_path[f"{DAY}/00000000.srt"] = ("00000000.mp3", b"1\n")
    return account


def test_a_hostile_name_is_text(account, tmp_path):
    account.add("archived", state="ARCHIVED", tags={"agentName": HOSTILE})
    export(account, tmp_path)
    shown = read(tmp_path / "index.html")
    assert {"script", "img", "iframe", "object"}.isdisjoint(shown.tags)
    assert not any(name.startswith("on") for name in shown.named)
    assert "<script>alert(1)</script>" in shown.text
    assert not {"\u202e", "\x1b"} & set(shown.text)
    assert "default-src 'none'" in (tmp_path / "index.html").read_text()


def test_every_link_stays_in_the_folder(account, tmp_path):
    export(account, tmp_path)
    for link in read(tmp_path / "index.html").links:
        if link != "data:,":
            assert not link.startswith(("/", "http", "file", ".."))
            assert (tmp_path / link.partition("#")[0]).is_file()


def test_the_times_of_a_conversation_lead_into_the_recording(account, tmp_path):
    export(account, tmp_path)
    links = read(tmp_path / "index.html").links
    assert f"{DAY}/00000000.mp3#t=4" in links
    assert f"{DAY}/00000000.mp3#t=3723" in links


def test_a_large_export_has_a_page_for_each_day(tmp_path, monkeypatch):
    monkeypatch.setattr(lists, "FEW", 3)
    account = Account()
    other = "2026/2026-03/2026-03-03"
    for number in range(4):
        account.add(f"{number:08d}", day=DAY if number < 2 else other)
    export(account, tmp_path)
    days = [link for link in read(tmp_path / "index.html").links if link.startswith("pages/")]
    assert len(days) == 2
    for link in days:
        shown = read(tmp_path / link)
        players = [each for each in shown.links if each.endswith(".mp3")]
        assert len(players) == 2
        assert all((tmp_path / "pages" / each).resolve().is_file() for each in players)
    for path in list(account.objects):
        if path.startswith(other):
            del account.objects[path]
    export(account, tmp_path, update=True, prune=True)
    assert not (tmp_path / "pages").exists()


def test_a_few_players_show_their_length_and_the_others_load_when_played(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "LOADED", 1)
    account = Account()
    account.add("00000000")
    account.add("00000001")
    export(account, tmp_path)
    text = (tmp_path / "index.html").read_text()
    assert text.count('preload="metadata"') == 1
    assert text.count('preload="none"') == 1
