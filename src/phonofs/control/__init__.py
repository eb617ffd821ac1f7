"""Status and commands over a unix socket: ``server`` in the mount, ``client`` in the commands."""
