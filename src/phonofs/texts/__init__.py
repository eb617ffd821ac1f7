"""Readable texts made of what the service stores as JSON. Pure.

``forms`` reads transcripts and summaries, ``render`` writes the texts, ``plain`` makes words safe
for a terminal and for a player.
"""
