"""Lay out the DOT text on stdin and write the picture to stdout; the argument is the format.

Run in a process of its own, because a layout that crashes would end the caller's.
"""

import sys


def main() -> None:
    import pygraphviz

    graph = pygraphviz.AGraph(string=sys.stdin.buffer.read().decode("utf-8"))
    picture = graph.draw(format=sys.argv[1], prog="dot")
    sys.stdout.buffer.write(picture or b"")


if __name__ == "__main__":
    main()
