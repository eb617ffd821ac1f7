"""Runs ``python -m phonofs.cli``."""

from phonofs.cli import main

main()
