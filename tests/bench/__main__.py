"""``python -m tests.bench [WORK ...]``: one table of ratios."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
