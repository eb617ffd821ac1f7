"""The disk cache: the content of objects in whole blocks with checksums, under a hard cap.

Everything runs on the event loop unless its docstring says *in a thread*. From the bottom up:

============== ===========================================================================
blocks         block arithmetic, CRCs of blocks, their packed form                     (pure)
breaker        when a failing disk is no longer used, and when it is tried again       (pure)
budget         the hard cap, the free space that remains, the charge of an object      (pure)
removal        removes files, and counts what they take on disk
codec          how a block is stored in the file of an encrypted cache                (pure)
directory      the cache directory: its owner, its lock, its marker
index_file     the SQLite file of the index: opened, removed, found damaged
index          which blocks of which object are on disk, and which was used last
buffers        blocks that are not whole yet, or cannot go to disk; bounded
blockfile      one open file of blocks
accounts       which accounts have used the directory
filestore      the files: creates, opens, counts, removes
set_aside      what other accounts left: counted, and evicted first
checked_read   what a thread reads and checks for an entry
hash_threads   threads that hash the blocks of objects as they come
backend        the disk as the entries see it: files, index, budget, breaker
checksum_task  checks a whole object against the checksum of its record
stored_blocks  the blocks of one object that are on disk
entry          one object: what the reader sees
eviction       which objects go first, and how
write_behind   small new objects, which go to disk many at a time
cache          all objects: opens, pins, forgets
maintenance    the background task: saves, flushes, evicts ahead, removes orphans
fsck           checks every block, for ``phonofs cache verify``
============== ===========================================================================
"""
