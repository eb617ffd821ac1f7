"""Reading: bytes of objects, lazily, each fetched once, ahead of a reader that goes on.

===================  =========================================================================
reader               what the file system calls: open, read, release; owns the open objects
open_object          one content while it is open: downloads in flight, who waits, read-ahead
download             one byte range on its way: its task, its retries, and who waits for it
length               what proves how long a content is, and what is given meanwhile
memory               what all open files may hold if there is no disk for it
verification         whether a whole content is right, and what follows if it is not
background_limit     who may fetch ahead now
readahead            how far ahead of a handle to fetch, and in which ranges            (pure)
directory_readahead  which files come next, and those fetched for a reader that is expected
limits               the numbers, each with its reason                                   (pure)
===================  =========================================================================

Everything runs on the event loop; nothing here is shared with threads.
"""
