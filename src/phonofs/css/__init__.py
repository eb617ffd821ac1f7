"""The way to the service: its protocol (pure), the transport, the token, and the client."""
