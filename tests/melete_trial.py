"""The `melete` command with the tests' own system `trial` beside the shipped ones; run as a script by the tests."""

import sys
from pathlib import Path

import melete

melete.__path__.append(str(Path(__file__).parent))

if __name__ == "__main__":
    from melete.__main__ import main

    sys.argv[0] = "melete"
    main()
