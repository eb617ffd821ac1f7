"""The options that say what is searched for, of the commands ``find`` and ``export``."""

from collections.abc import Callable
from functools import reduce
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])

SEARCH_OPTIONS = (
    click.option("--agent", metavar="NAME", help="Of this agent or user; * stands for any text."),
    click.option("--queue", metavar="NAME", help="Of this queue; * stands for any text."),
    click.option("--number", metavar="N", help="With this phone number, or one that ends with it."),
    click.option("--call", metavar="ID", help="Of this call (the tag callId)."),
    click.option("--type", "types", metavar="T", multiple=True, help="Of this object type."),
    click.option(
        "--direction", type=click.Choice(["in", "out"]), help="Of calls in this direction."
    ),
    click.option("--longer", metavar="T", help="Longer than this, as 90s, 10m or 1h."),
    click.option("--shorter", metavar="T", help="Shorter than this."),
    click.option(
        "--since", metavar="D", help="In this day folder or later: 2026-11-17, 2026-11, 2026."
    ),
    click.option("--until", metavar="D", help="In this day folder or earlier."),
    click.option(
        "--tag", "tags", metavar="K=V", multiple=True, help="With this tag; * in V is any text."
    ),
)
"""In the order in which help shows them; ``search.options.condition_of`` takes their values."""


def search_options(command: _Command) -> _Command:
    """Add the options to a command."""
    return reduce(lambda added, option: option(added), reversed(SEARCH_OPTIONS), command)
