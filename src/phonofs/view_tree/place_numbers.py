"""The inode numbers of the directories and links of the views. Used by ``views``."""

from cachetools import LRUCache

from phonofs.views.places import Place, next_ino

PLACES_KEPT = 20_000
"""Places kept by their numbers, about 0.4 KB each. The others are found again by what their numbers
say."""


class PlaceNumbers:
    """Owns the places that were used last, by inode number."""

    def __init__(self) -> None:
        self._places: LRUCache[int, Place] = LRUCache(PLACES_KEPT)

    def ino(self, place: Place) -> int:
        """Return the inode number of a place, and keep it: the kernel will ask for it."""
        ino = place.ino
        while self._places.get(ino, place) != place:  # another name with the same hash
            ino = next_ino(ino)
        self._places[ino] = place
        return ino

    def place(self, ino: int) -> Place | None:
        """Return the place with a number; None if it was not used for long, or never."""
        return self._places.get(ino)
