"""Finds out what the account holds: asks the service, and fills the catalogue.

``lister`` lists a directory when somebody looks at it, ``follower`` asks for changes. Pure parts
decide what to ask next: ``planning``, ``pagination``, ``poll``, ``estimates``, ``sequential_days``.
``page_worker`` prepares pages in a second process while much is listed.
"""
