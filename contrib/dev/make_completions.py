"""Writes the shell completions from the commands: ``python contrib/dev/make_completions.py``.

They ask the installed program for the words, so that they only change when click does.
"""

from pathlib import Path

from click.shell_completion import get_completion_class

from phonofs.cli import group

FOLDER = Path(__file__).resolve().parents[1] / "completions"
NAMES = {"bash": "phonofs.bash", "zsh": "_phonofs", "fish": "phonofs.fish"}


def completion(shell: str) -> str:
    """The completion of a shell."""
    kind = get_completion_class(shell)
    assert kind is not None
    # Not kind.source(), which starts a bash to look at its version.
    made = kind(group, {}, "phonofs", "_PHONOFS_COMPLETE")
    return (kind.source_template % made.source_vars()).strip() + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for shell, name in NAMES.items():
        (FOLDER / name).write_text(completion(shell), encoding="utf-8")
