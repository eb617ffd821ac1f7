"""Searches: what a search needs of a record, what is asked for, and whether a record matches. Pure.

Used by the commands, the catalogue and ``discovery``. The service only narrows a search
(``narrowing``); what it returns is decided on here.
"""
