"""Runs the command line for ``python -m phonofs``."""

from phonofs.cli import main

if __name__ == "__main__":
    main()
