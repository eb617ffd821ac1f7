"""The sample account: what a user of ``phonofs demo`` sees. Pure.

``dataset`` makes the account, ``calls`` its calls, ``media`` the content of recordings.
"""
