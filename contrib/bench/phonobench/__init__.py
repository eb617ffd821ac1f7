"""The benchmark: phonofs and rclone over the same bytes, in turns, as ratios.

``run`` is the comparison, ``scale`` the million objects, ``wire`` the HTTP transports. With
``--before DIR`` the first two compare this checkout with another one: each round measures both,
in turns, and they end with 1 if a row is worse in every round. The service is always that of this
checkout.

Stands alone: of phonofs it uses the command line, and ``phonofs.fakeservice.fiql`` to understand
its searches.
"""
