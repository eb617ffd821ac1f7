"""Lists of objects for other programs: CSV, JSON lines, checksums, playlists, Parquet.

One table of columns (``columns``), one module for each form. What a caller chose, such as a name,
can drive neither a spreadsheet nor a terminal. Pure, except for ``parquet``, which writes files.
"""
