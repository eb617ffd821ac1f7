"""The way to the service: its protocol (pure), the transport, the token, and the client."""

import sys

# httpx imports its own command line, and with it rich and pygments: a seventh of the time that a
# mount takes to start. It does without where that cannot be imported.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
