"""A fake of the 8x8 Cloud Storage Service: its API and its object store, with faults on demand.

``phonofs demo`` and the tests use it; it needs no key and no network. ``account``, ``fiql`` and
``faults`` are pure; ``state`` is shared by the handlers of requests; ``service`` answers requests
without sockets; ``server`` serves it on two loopback ports.
"""
