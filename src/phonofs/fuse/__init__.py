"""The adapter between the kernel and the vfs: it converts, calls the vfs and translates errors."""
