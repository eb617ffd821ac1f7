"""What is known of the account: objects, folders, what was listed, how far it is followed.

``store`` is the persistent index (SQLite), ``lister`` fills it for the folders somebody looks
at, ``follower`` keeps it up to date, ``plan`` and ``paging`` decide (pure) what to ask next.
"""
