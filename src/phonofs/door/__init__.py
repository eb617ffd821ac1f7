"""The door: a unix socket through which programs read the tree of a daemon without a mount.

``protocol`` and ``address`` belong to both halves and import nothing else of phonofs; ``server``
and what it uses run in the daemon.
"""
