"""``python -m minigrad``."""

from minigrad.cli import main

main()
