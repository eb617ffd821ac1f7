"""The views: the account by call, day, agent and queue instead of by object. Pure.

``calls`` joins the objects of a call, ``names`` gives them file names, ``places`` divides the
views into directories with inode numbers.
"""
