"""Names of the extended attributes that have a meaning for more than one module. Pure.

``vfs.py`` answers them, ``record_attributes.py`` has those of a record; the commands read them
through a mount, and must not import the vfs for a name.
"""

PREFIX = "user.phonofs."
STATUS_ATTRIBUTE = f"{PREFIX}status"  # of the root
JSON_ATTRIBUTE = f"{PREFIX}json"
PATH_ATTRIBUTE = f"{PREFIX}path"
KNOWN_ATTRIBUTE = f"{PREFIX}known"  # of the root
CACHED_ATTRIBUTE = f"{PREFIX}cached"
TYPE_ATTRIBUTE = f"{PREFIX}type"
MADE_FROM_ATTRIBUTE = f"{PREFIX}made_from"  # of a text
TAG_PREFIX = f"{PREFIX}tag."
