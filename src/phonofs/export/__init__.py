"""A copy of chosen objects in a folder, complete or with a list of what is missing.

``run`` decides what to copy and in which order; ``destination`` writes below the folder and
nowhere else; ``ledger`` knows which files the export has made; ``lists`` and ``page`` describe
them. Content comes from ``contents``, which a mount or a session implements. Used by
``cli/export.py``.
"""
