"""phonofs: the recordings of an 8x8 account as a read-only folder organised by date."""

__version__ = "0.1.0"
