"""Reading: bytes of objects, lazily, each fetched once, ahead of whoever reads on.

==========  =====================================================================================
reader      what the file system calls: open, read, release; owns the streams and their tasks
streams     one content while it is open: parts in flight, joined or cut; read-ahead
part        one interval on its way, and who waits for it
fetching    the task of a part: ask, receive, go on from the byte reached
length      what proves how long a content is, and what is given meanwhile
memory      what all open files may hold where there is no disk for it
proof       whether a whole content is right, and what follows where it is not
holds       files brought ahead for a reader expected soon
turns       who may fetch ahead now
window      how a handle reads, how far ahead to fetch                                   (pure)
plan        which bytes are neither there nor coming, in pieces                          (pure)
pace        how fast a region answers; how many parts side by side                       (pure)
neighbours  which files come next                                                        (pure)
limits      the numbers, each with its reason                                            (pure)
ports       what is needed of the service and the cache
==========  =====================================================================================

Everything runs on the event loop; nothing here is shared with threads.
"""
