"""The sample account: what a user of ``phonofs demo`` sees. Pure.

``dataset`` makes the account, ``calls`` the objects of a call, ``media`` the content of
recordings; ``sample_data`` reads the names and texts from ``data/sample.toml``.
"""
