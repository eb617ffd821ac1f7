"""What is known of the account, in SQLite: objects, directories, what was listed. Synchronous.

``catalogue`` is the store that all others use; it knows no service. ``discovery`` fills it and
keeps it up to date.
"""
