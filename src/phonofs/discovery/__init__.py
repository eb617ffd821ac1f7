"""Finds out what the account holds: asks the service, and fills the catalogue.

``lister`` lists a directory when somebody opens it: ``day_listing`` a day, ``parts_listing`` a
year or month. ``follower`` polls for changes. ``searches`` is what these share; ``single_flight``
has all callers of one listing wait for it. Pure modules decide what to request next:
``planning``, ``pagination``, ``guesses``, ``poll``, ``estimates``, ``sequential_days``.
``page_worker`` prepares pages in a second process during long listings.

``record_search`` brings in what a search needs, and ``indexer`` everything; ``unlisted_days`` says
which days those two have to list, and ``rests`` how long background work pauses after a failure.
"""
