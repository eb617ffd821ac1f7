"""What is known about the account, in SQLite: objects, directories, listed spans. Synchronous.

Other packages use ``catalogue.Catalogue``, which never calls the service. ``discovery`` fills it
and keeps it up to date.
"""
