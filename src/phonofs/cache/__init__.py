"""The disk cache: the content of objects, block by block, bounded, checked, thrown away first.

Everything runs on the event loop unless its docstring says *in a thread*. From the bottom up:

============== ===========================================================================
blocks         block arithmetic, CRCs of blocks, their packed form                     (pure)
breaker        when a failing disk is left alone, and when it is tried again           (pure)
budget         the hard cap, the free space that is left, what an object takes         (pure)
removal        removing files, counting what they take on disk
codec          how a block lies in its file: as it is, or encrypted                    (pure)
directory      the cache directory: whose it is, its lock, its marker
index_file     the SQLite file of the index: opened, checkpointed, removed, found damaged
index          which blocks of which object are on disk, and which was used last
buffers        blocks that are not whole yet, or may not go to disk; bounded
blockfile      one open file of blocks
accounts       which accounts used the directory
filestore      the files: make, open, count, move to the trash, remove
set_aside      what the other accounts left: counted, and removed first
read_plan      what a thread reads and checks for an entry
backend        the disk as the entries see it: files, index, budget, breaker
checksum_task  the whole of an object against the checksum of its record
stored_blocks  the blocks of one object that are on disk
entry          one object: what the reader sees
write_behind   small new objects, which go to disk many at a time
cache          all of them: open, pin, evict, forget
maintenance    the background task: save, flush, evict ahead, look for orphans
fsck           checks every block, for ``phonofs cache verify``
============== ===========================================================================
"""
