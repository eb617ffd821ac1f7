"""Finds out what the account holds: asks the service, and fills the catalogue.

``lister`` lists a directory when somebody opens it: ``day_listing`` a day, ``parts_listing`` a
year or month. ``follower`` polls for changes. Pure modules decide what to request next:
``planning``, ``pagination``, ``poll``, ``estimates``, ``sequential_days``. ``page_worker``
prepares pages in a second process during long listings.
"""
