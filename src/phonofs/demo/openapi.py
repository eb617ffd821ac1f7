"""The stand-in's description of itself, OpenAPI 3.1, in our own words. Pure."""

from typing import Any


def description(url: str) -> dict[str, Any]:
    """The description, for a stand-in whose api origin is ``url``."""
    return {"openapi": "3.1.0", "info": {"title": "stand-in", "version": "3"}, "paths": {}}
