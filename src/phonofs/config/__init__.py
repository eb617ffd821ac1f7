"""The options of a mount: declared once, read from text, merged from layers.

``options`` holds the table, ``values`` reads one value, ``settings`` merges the layers: these are
pure. ``load`` reads files and environment, ``folders`` says where those are.
"""

from phonofs.config.options import (
    BY_NAME,
    DEFAULT_TEMPLATE,
    LOG_LEVELS,
    OPTIONS,
    TEMPLATE_FIELDS,
    Kind,
    Option,
)
from phonofs.config.settings import (
    Layer,
    Settings,
    Source,
    SystemDefaults,
    as_texts,
    check_profile,
    merge,
)
from phonofs.config.values import Secret, is_loopback, nearest

DEFAULT_PROFILE = "default"
"""The profile used if none is named; its table also applies to every other profile."""

__all__ = [
    "BY_NAME",
    "DEFAULT_PROFILE",
    "DEFAULT_TEMPLATE",
    "LOG_LEVELS",
    "OPTIONS",
    "TEMPLATE_FIELDS",
    "Kind",
    "Layer",
    "Option",
    "Secret",
    "Settings",
    "Source",
    "SystemDefaults",
    "as_texts",
    "check_profile",
    "is_loopback",
    "merge",
    "nearest",
]
