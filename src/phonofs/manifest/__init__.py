"""Lists of objects for other programs: CSV, JSON lines, checksums, playlists. Pure.

One table of columns (``columns``), one module for each form. What a caller chose, such as a name,
can drive neither a spreadsheet nor a terminal.
"""
