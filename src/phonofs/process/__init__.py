"""What a process needs around its work: background, log, service manager, supervised tasks."""
