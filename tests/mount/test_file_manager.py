"""A file manager with thumbnails switched on, on a virtual screen, fetches nothing.

Needs Thunar, tumbler with its plugins, Xvfb and D-Bus (packages thunar, tumbler,
tumbler-plugins-extra, xvfb, xdotool, dbus); without them it is skipped.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from phonofs.demo import media
from phonofs.fakeservice.account import Account, Item, flat_item
from tests.support.accounts import NOON_MS
from tests.support.mounts import files, mounted, standing, status_of, until

PROGRAMS = ("thunar", "Xvfb", "dbus-run-session", "xdotool", "xfconf-query")
TUMBLER = (
    "/usr/lib/x86_64-linux-gnu/tumbler-1/tumblerd",
    "/usr/lib/aarch64-linux-gnu/tumbler-1/tumblerd",
)
COUNT = 200

COLD_START_S = 120.0
"""How long the desktop's programs may take to start: their files may not be in memory yet."""

missing = [name for name in PROGRAMS if shutil.which(name) is None]
pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(bool(missing), reason=f"without {', '.join(missing)}"),
    pytest.mark.skipif(not any(map(os.path.exists, TUMBLER)), reason="without tumblerd"),
]

FORMS = ("audio/mpeg", "mp3"), ("audio/wav", "wav"), ("video/mp4", "mp4")


def item(number: int) -> Item:
    mime_type, extension = FORMS[number % 3]
    content = {
        "mp3": lambda: media.mp3(f"call {number}", "nobody", 36 * 400, stereo=False),
        "wav": lambda: media.wav(f"call {number}", 10_000),
        "mp4": lambda: media.mp4(f"screen {number}", 10),
    }[extension]()
    kind = "screenrecording" if extension == "mp4" else "callrecording"
    return flat_item(
        f"{number:08d}", 0, NOON_MS + 1000 * number,
        type=kind, name=f"{number}.{extension}", mime_type=mime_type, content=content,
    )  # fmt: skip


@contextlib.contextmanager
def desktop(folder: Path) -> Iterator[dict[str, str]]:
    """Start a virtual screen, and return the environment of its programs.

    It is told not to reset: otherwise it begins anew when its last client leaves, here a look for
    a window, and ends the connection of a program that is just coming.
    """
    home = folder / "home"
    home.mkdir()
    reader, writer = os.pipe()
    screen = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1280x900x24", "-nolisten", "tcp",
         "-noreset"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=[writer],
    )  # fmt: skip
    os.close(writer)
    with open(reader) as numbers:
        display = numbers.readline().strip()  # it is ready when it says its number
    environment = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "DISPLAY": f":{display}",
        "XDG_RUNTIME_DIR": str(home),
        "GDK_BACKEND": "x11",
        "LANG": "C.UTF-8",
    }
    try:
        assert display, "Xvfb did not start"
        yield environment
    finally:
        screen.terminate()
        screen.wait(60)


SESSION = """
xfconf-query -c thunar -p /misc-thumbnail-mode -n -t string -s THUNAR_THUMBNAIL_MODE_ALWAYS
xfconf-query -c thunar -p /last-view -n -t string -s ThunarIconView
exec thunar "$0"
"""


@contextlib.contextmanager
def thunar(environment: dict[str, str], folder: Path) -> Iterator[Callable[[], bool]]:
    """Open a folder in Thunar, with a session of its own; end all of that session.

    The value says whether a window of it is shown.
    """
    said = Path(environment["HOME"]) / "session.log"
    with said.open("wb") as log:
        process = subprocess.Popen(
            ["dbus-run-session", "--", "sh", "-c", SESSION, str(folder)],
            env=environment, start_new_session=True, stdout=log, stderr=log,
        )  # fmt: skip

    def shown() -> bool:
        assert process.poll() is None, said.read_text()
        return bool(xdotool(environment, "search", "--onlyvisible", "--class", "thunar"))

    try:
        yield shown
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def xdotool(environment: dict[str, str], *words: str) -> str:
    done = subprocess.run(["xdotool", *words], env=environment, capture_output=True, text=True)
    return done.stdout.strip()


def page_down(environment: dict[str, str]) -> None:
    """Scroll to the end, so that every file was shown."""
    window = xdotool(environment, "search", "--onlyvisible", "--class", "thunar").split()[-1]
    xdotool(environment, "windowsize", window, "1280", "900")
    xdotool(environment, "mousemove", "800", "600", "click", "1")
    for _ in range(15):
        xdotool(environment, "key", "Page_Down")
        subprocess.run(["sleep", "0.3"], check=True)


@pytest.mark.promise("crawlers-open-nothing")
def test_a_day_of_200_recordings_with_thumbnails_fetches_nothing(tmp_path):
    account = Account(map(item, range(COUNT)), ("us-east",))
    picture = os.environ.get("SCREENSHOTS")  # a folder, for a person who looks
    with standing(account) as service, mounted(service.url, tmp_path) as mount:
        day = files(mount.point)[0].parent
        assert len(list(day.iterdir())) == COUNT
        with desktop(tmp_path) as environment, thunar(environment, day) as shown:
            until(shown, COLD_START_S)
            refused = lambda: status_of(mount)["opens"]["refused"].get("tumblerd", 0)  # noqa: E731
            until(lambda: refused() > 0, COLD_START_S)
            page_down(environment)
            if picture:
                command = ["import", "-window", "root", f"{picture}/thunar.png"]
                subprocess.run(command, env=environment, check=True)
            status = status_of(mount)
        assert status["opens"]["refused"]["tumblerd"] > 20, "it did ask for thumbnails"
        assert service.service.counters.requests["content"] == 0, status["opens"]
        assert status["service"]["received_bytes"] < 2_000_000, "records only"
