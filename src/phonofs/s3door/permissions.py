"""Whether a key may open, list and look at files of a type. Used by the listing and by requests.

A text that is made of objects has what its sources say, so it counts as of their types. A list of a
day (``.views/by-day/``) tells of objects of all types: only a key for all types may see it.
"""

from phonofs.catalogue.catalogue import Entry
from phonofs.s3door.keys import Key
from phonofs.vfs import Vfs
from phonofs.view_tree.listings import ViewEntry
from phonofs.views.names import Text


def permits_type(vfs: Vfs, key: Key, entry: Entry) -> bool:
    """Return whether a key may open a file, wherever it is. Raises NoSuchName, Malformed."""
    if not key.types:
        return True
    text = entry.text if isinstance(entry, ViewEntry) else None
    if text is None:
        return key.opens_type(vfs.record(entry.ino).type)
    return isinstance(text, Text) and all(key.opens_type(each.type) for each in text.sources)
