"""Reading: bytes of objects, lazily, each fetched once, ahead of whoever reads on.

``ports`` says what is needed of the service and the cache, ``reader`` is what the file system
calls. Everything runs on the event loop; nothing here is shared with threads.
"""
