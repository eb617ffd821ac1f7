"""The views as the file system shows them, over the catalogue, the lister and the reader.

``call_index`` joins the calls of known days, ``groups`` says whose they are, ``spans`` lists what
is not known of a span of time, ``views`` lists directories, ``text_files`` makes texts and knows
their sizes, and ``recent_listings`` says in which order files are read.
"""
