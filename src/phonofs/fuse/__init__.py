"""The edge towards the kernel: converts, calls the vfs, translates errors. Nothing else."""
