"""The disk cache: the content of objects, block by block, bounded, checked, thrown away first.

Everything runs on the event loop unless its docstring says *in a thread*. From the bottom up:

========== ==========================================================================
blocks     pure: what a block is, CRCs of blocks, their packed form
digest     pure: what a checksum says; hashing a stretch of content
room       the budget: the hard cap, what is left, when to evict
health     pure: when a failing disk is left alone and tried again
folder     the cache folder: whose it is, its lock, its marker
shelf      the files in it; the only code that reads or writes content
sealed     a file of content that is encrypted
index      SQLite: which blocks of which object are there, and who was used last
holding    the bytes of one object in one place, and what they cost there
late       small new contents, which go to disk many at a time
stock      the state of one object: what is here, where, and how far it is trusted
writing    bytes into a stock
reading    bytes out of a stock, checked
checking   the whole of a stock against its checksum
blob       one object, as the reader sees it
ground     what all blobs stand on: disk, index, room, memory
cache      all of them: open, pin, evict, forget
janitor    the background task: saves, evicts ahead, tidies, tries again
audit      checks everything, on request
========== ==========================================================================
"""
