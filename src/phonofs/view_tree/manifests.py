"""Writes the lists of a day: ``calls.csv``, ``calls.jsonl``, ``MD5SUMS``."""

from functools import partial

import trio

from phonofs.catalogue.catalogue import Catalogue
from phonofs.errors import NoSuchName
from phonofs.manifest.columns import Listed
from phonofs.manifest.formats import FORMS
from phonofs.tree.layout import directory_of
from phonofs.view_tree.in_steps import worked_out
from phonofs.views.names import Manifest, TextKind, names_of_objects

_FORMS = {TextKind.CSV: "csv", TextKind.JSON_LINES: "jsonl", TextKind.CHECKSUMS: "md5"}

LINES_AT_ONCE = 50
"""Lines that are written in one step, 5 ms."""


async def written(catalogue: Catalogue, manifest: Manifest, profile: str) -> bytes:
    """Return the bytes of a list: one line for each object, in the order of names.

    Paths are those of the date tree below the mount point; names, also those of a list of
    checksums, are those of the view. Raises Malformed.
    """
    form = FORMS[_FORMS[manifest.kind]]()
    zone = catalogue.placement.calendar.zone
    day = directory_of(manifest.day)
    assert day is not None, "the number of a list is that of a day"
    above = catalogue.path(manifest.day)
    objects = await worked_out(partial(names_of_objects, manifest.calls), len(manifest.calls))
    lines = [form.head()]
    for number, (name, each) in enumerate(objects):
        try:
            record = catalogue.record(each.ino)
            here = catalogue.parent(each.ino) == manifest.day
            path = f"{above}/{each.name}" if here else catalogue.path(each.ino)
        except NoSuchName:
            continue  # it went a moment ago
        if manifest.kind is not TextKind.CHECKSUMS:
            lines.append(form.line(Listed(path, record, zone, profile, name)))
        elif each.summed:
            lines.append(form.line(Listed(name, record, zone, profile)))
        if number % LINES_AT_ONCE == LINES_AT_ONCE - 1:
            await trio.lowlevel.checkpoint()
    lines.append(form.tail())
    return "".join(lines).encode("utf-8", "replace")
