"""File names and directories of objects. Pure: no clock, no I/O, no state but small caches.

``naming`` makes the file name of a record; ``layout`` divides time into days and gives every
directory its permanent inode number. Used by the catalogue, which stores the results.
"""
