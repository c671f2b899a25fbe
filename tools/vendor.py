"""Copies the browser libraries of the chat page from npm packages into the Python package.

`npm ci` installs what package-lock.json pins by checksum (no scripts are run); this file then copies one file and the
licence of each library to `src/melete/serve/static/vendor/`, which git ignores and the wheel includes. Nothing is
built, and the running product needs no Node: without these files the chat page shows plain text instead of Markdown.

    python tools/vendor.py            # install with npm, then copy
    python tools/vendor.py --check    # say whether the copies are there and current; exit 1 if not
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "src" / "melete" / "serve" / "static" / "vendor"
PAGES = ROOT / "src" / "melete" / "ui" / "static" / "vendor"
FILES = {
    "htmx.js": "htmx.org/dist/htmx.min.js",
    "htmx.LICENSE": "htmx.org/LICENSE",
    "uplot.js": "uplot/dist/uPlot.iife.min.js",
    "uplot.css": "uplot/dist/uPlot.min.css",
    "uplot.LICENSE": "uplot/LICENSE",
    "marked.js": "marked/lib/marked.esm.js",
    "marked.LICENSE": "marked/LICENSE",
    "purify.js": "dompurify/dist/purify.min.js",
    "purify.LICENSE": "dompurify/LICENSE",
}
EXPORTS = {"uplot.js": "uPlot", "purify.js": "globalThis.DOMPurify"}
"""What a library that is no module has as its default export here; the minified one is a third of uPlot's module."""


def main() -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say whether the copies are current")
    if parser.parse_args().check:
        return check()
    if shutil.which("npm") is None:
        print("npm is not installed: the chat page will show plain text. Install Node 20 and run this again.")
        return 0
    done = subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
        cwd=ROOT,
        check=False,
    )
    if done.returncode != 0:
        print("npm ci failed: the chat page will show plain text until this succeeds.", file=sys.stderr)
        return 1
    TARGET.mkdir(parents=True, exist_ok=True)
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, source in FILES.items():
        text = without_source_map((ROOT / "node_modules" / source).read_text(encoding="utf-8"))
        if name in EXPORTS:
            text += f"export default {EXPORTS[name]};\n"
        (TARGET / name).write_text(text, encoding="utf-8")
        (PAGES / name).write_text(text, encoding="utf-8")
    print(f"{len(FILES)} files in {TARGET.relative_to(ROOT)}")
    return 0


def check() -> int:
    """Says which copies are missing."""
    missing = [name for name in FILES if not (TARGET / name).is_file()]
    print(f"missing: {', '.join(missing)}" if missing else f"all {len(FILES)} files are there")
    return 1 if missing else 0


def without_source_map(text: str) -> str:
    """Drops the comment that would make a browser's developer tools ask for a file that is not shipped."""
    return (
        "\n".join(line for line in text.splitlines() if not line.startswith("//# sourceMappingURL=")) + "\n"
    )


if __name__ == "__main__":
    sys.exit(main())
