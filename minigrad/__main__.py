"""``python -m minigrad``."""

from minigrad.cli import main

if __name__ == "__main__":
    main()
