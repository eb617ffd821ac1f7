"""The benchmark: phonofs and rclone over the same bytes, in turns, as ratios.

``run`` is the comparison, ``scale`` the million objects, ``wire`` the HTTP transports. Stands
alone: of phonofs it uses the command line, and ``phonofs.fakeservice.fiql`` to understand its
searches.
"""
