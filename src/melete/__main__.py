"""`melete` on the command line: the first lane answers `--help` from a text, everything else goes to click.

Nothing but `sys` is imported before it is known what is asked, so that help comes at once.
"""

import sys


def main() -> None:
    """Entry point of the `melete` command."""
    from melete.cli._root import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
