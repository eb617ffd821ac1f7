"""``python -m phonofs``."""

from phonofs.cli import main

if __name__ == "__main__":
    main()
