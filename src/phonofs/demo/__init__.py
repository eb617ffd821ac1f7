"""The made-up account and the stand-in for the 8x8 Cloud Storage Service.

For ``phonofs demo`` and for the tests: no key, no network, faults on demand. ``content``,
``account``, ``dataset``, ``endless``, ``fiql`` and ``faults`` are pure; ``service`` answers
requests without sockets; ``wire`` and ``server`` put it on two loopback ports.
"""
