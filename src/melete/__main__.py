"""`melete` on the command line: the first lane answers help and version from a text, everything else goes to click.

Nothing but `sys` is imported before it is known what is asked, so that the front door opens at once. `front.txt` is the
help as click would print it; `python -m melete.cli._front` writes it anew and a test keeps the two equal.
"""

import sys


def main() -> None:
    """Entry point of the `melete` command; exits with the code of the command."""
    if sys.argv[1:] in ([], ["-h"], ["--help"]):
        with open(__file__.replace("__main__.py", "cli/front.txt"), encoding="utf-8") as front:
            _print(front.read())
        sys.exit(0)
    if sys.argv[1:] == ["--version"]:
        from melete import __version__

        _print(f"melete {__version__}\n")
        sys.exit(0)
    from melete.cli._root import run

    sys.exit(run(sys.argv[1:]))


def _print(text: str) -> None:
    """Writes a text; a reader that went away (`melete --help | head -1`) is no error."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stderr.close()


if __name__ == "__main__":
    main()
