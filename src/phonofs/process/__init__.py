"""The environment of a process: background, log, service manager, supervised tasks."""
