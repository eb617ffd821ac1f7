"""Serves the tree to S3 clients: read-only, by keys of its own, beside or without a mount."""
