"""What the demo says can be tried is there, whatever options it was started with."""

import pytest

from phonofs.cli.demo import example, what_to_try


@pytest.mark.parametrize(
    ("views", "texts", "listed", "searched"),
    [
        (".views", True, ".views/by-day/2026-11-27", ".views/text"),
        ("views", True, "views/by-day/2026-11-27", "views/text"),
        (".views", False, ".views/by-day/2026-11-27", ""),
        ("", True, "2026/2026-11/2026-11-27", ""),
    ],
)
def test_the_commands_name_what_is_there(tmp_path, views, texts, listed, searched):
    day = tmp_path / "2026" / "2026-11" / "2026-11-27"
    for folder in (day, tmp_path / "2026" / "2026-11" / "2026-11-28"):
        folder.mkdir(parents=True)
    (day / "a.mp3").touch()
    if views:
        (tmp_path / views / "by-day" / "2026-11-29").mkdir(parents=True)
    found = example(tmp_path)
    assert found == (day, "a.mp3")
    lines = what_to_try(str(tmp_path), found, views, texts=texts).splitlines()
    assert lines[1:] == [
        f"  ls -l {tmp_path / listed}",
        f"  grep -rs invoice {tmp_path / searched}",
        f"  ffprobe -hide_banner {day / 'a.mp3'}",
    ]
