"""Reads the bytes of objects: on demand, each byte downloaded once, with read-ahead.

A read asks its open object for a range. What is not in the cache entry is covered by downloads,
each a task that requests a range and writes what comes into the cache entry; the read waits
until its download has come far enough, and is answered from the cache entry. Bytes are withheld
while the checksum or the length of the content is in doubt.

A read in sequence needs one download, which requests all that follows and runs on: it receives as
far ahead of its readers as their windows reach, and leaves the rest in the socket. Only if the
speed of that connection is what its readers wait for do others bring the ranges behind it.

===================  =========================================================================
reader               what the file system calls: open, read, release; owns the open objects
open_object          one content while it is open: its downloads, handles and read-ahead
download             downloads one byte range: task, retries, waiters
length               what proves how long a content is, and what is withheld until then
memory               bounds what all open files hold in memory
verification         the checksum of a whole content, and what is withheld until then
readahead            how far ahead of a handle to fetch, and in which ranges            (pure)
directory_readahead  the next files of a scan of a folder, and those fetched for it
context              what all open objects share: service, limits, counts
limits               the numbers, each with its reason                                   (pure)
===================  =========================================================================

Everything runs on the event loop; nothing is shared with threads.
"""
