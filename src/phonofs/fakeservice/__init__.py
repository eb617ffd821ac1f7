"""A fake of the 8x8 Cloud Storage Service: its API and its object store, with faults on demand.

Used by ``phonofs demo`` and by the tests: no key, no network. ``account``, ``fiql`` and ``faults``
are pure; ``state`` is what all parts share; ``service`` answers requests without sockets;
``http_server`` and ``server`` put it on two loopback ports.
"""
