"""The access journal: who opened which recording, in lines that are chained by their hashes.

``lines`` is the form of a line, ``verification`` reads journals and checks them (both without
state), ``folder`` finds and locks the folder, ``month_file`` appends to the file of a month,
``writer`` goes on with the chain, and ``journal`` is what a mount writes to; ``entry`` is what
waits there, ``disk_thread`` what waits for the disk. ``access.py`` decides what is recorded.
"""
