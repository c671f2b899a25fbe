"""Makes environments for what cannot live beside Melete's own pins: `.envs/NAME`, from the lock file `envs/NAME.lock`.

A lock file is pip's requirements format with every version pinned, or npm packages as `NAME@VERSION`; lines at its
head say the rest:

    # python: 3.12, 3.11     the Python to use: the first of these that is found
    # tests: yes             tests need it, so `--tests` makes it
    # melete: yes            Melete itself is installed in it, editable, without its dependencies
    # deps: no               what the packages need is not installed: only their files are wanted
    # npm: yes               the packages are npm's, and their programs go to `bin` too; no Python is in it

    python tools/envs.py NAME…            # make these; one that is there and current is left alone
    python tools/envs.py --tests          # those that tests need
    python tools/envs.py --all | --list

Packages come from where pip is configured to look; uv installs them if it is there, because it is several times
quicker, else pip. Python 3.12 is looked for on the PATH and among pyenv's versions. Where only an older Python than a
package asks for is found, pip is told to install it all the same and a line says so.

Add one: write `envs/NAME.lock`, for example with `uv pip compile --no-header --no-annotate`, and the head.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "envs"
ENVS = ROOT / ".envs"
STAMP = "made-from.sha256"


@dataclass(frozen=True)
class Environment:
    """One lock file and the folder that is made from it."""

    name: str

    @property
    def lock(self) -> Path:
        """The pinned requirements."""
        return LOCKS / f"{self.name}.lock"

    @property
    def folder(self) -> Path:
        """The environment."""
        return ENVS / self.name

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def digest(self) -> str:
        """Of the lock file; the folder holds the one it was made from."""
        return sha256(self.lock.read_bytes()).hexdigest()

    @property
    def current(self) -> bool:
        """Whether the folder was made from the lock file as it is now."""
        stamp = self.folder / STAMP
        return stamp.is_file() and stamp.read_text(encoding="utf-8") == self.digest

    def head(self, key: str) -> str:
        """Value of a line `# key: value` at the head of the lock file, or nothing."""
        found = re.search(rf"^# {key}: (.+)$", self.lock.read_text(encoding="utf-8"), re.MULTILINE)
        return found[1].strip() if found else ""


def main() -> int:
    """Runs the command line; returns the exit code."""
    known = {path.stem: Environment(path.stem) for path in sorted(LOCKS.glob("*.lock"))}
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(known)}")
    parser.add_argument("--all", action="store_true", help="make all")
    parser.add_argument("--tests", action="store_true", help="make those that tests need")
    parser.add_argument("--list", action="store_true", help="say what there is, and make nothing")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"There is no environment named {unknown[0]!r}. Known: {', '.join(known)}.")
    if options.list:
        for env in known.values():
            state = "current" if env.current else "not made" if not env.folder.exists() else "out of date"
            purpose = env.lock.read_text(encoding="utf-8").split("\n")[0].lstrip("# ")
            print(f"{env.name:<24} {state:<12} {purpose}")
        return 0
    wanted = [
        env
        for env in known.values()
        if options.all or env.name in options.names or (options.tests and env.head("tests") == "yes")
    ]
    if not wanted:
        parser.error("Name an environment, or say --tests, --all or --list.")
    for env in wanted:
        if not env.current:
            make(env)
        print(f"{env.name}: {env.folder.relative_to(ROOT)}")
    return 0


def make(env: Environment) -> None:
    """Makes an environment anew; an interrupted one is made again the next time."""
    began_s = time.monotonic()
    shutil.rmtree(env.folder, ignore_errors=True)
    if env.head("npm") == "yes":
        install_npm(env)
    else:
        install_python(env)
    (env.folder / STAMP).write_text(env.digest, encoding="utf-8")
    size = sum(path.lstat().st_size for path in env.folder.rglob("*"))
    print(f"{env.name}: made in {time.monotonic() - began_s:.0f} s, {size / 1e6:.0f} MB")


def install_npm(env: Environment) -> None:
    """Installs npm packages, as npm installs globally, but into the environment's folder."""
    npm = shutil.which("npm")
    if npm is None:
        sys.exit(f"{env.name} is made by npm, which was not found on the PATH. Install Node.js 20 or newer.")
    lines = env.lock.read_text(encoding="utf-8").splitlines()
    packages = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    run(
        npm,
        "install",
        "--global",
        "--prefix",
        str(env.folder),
        "--no-fund",
        "--no-audit",
        "--silent",
        *packages,
    )


def install_python(env: Environment) -> None:
    """Makes a virtual environment and installs the lock file in it."""
    python, wanted = find_python(env.head("python").split(", "))
    run(python, "-m", "venv", str(env.folder))
    lax = not python_fits(python, wanted)
    if lax:
        print(f"{env.name}: Python {wanted} is not here; installing for {version(python)} all the same.")
    bare = ["--no-deps"] if env.head("deps") == "no" else []
    install(env, *bare, "-r", str(env.lock), lax=lax)
    if env.head("melete") == "yes":
        install(env, "--no-deps", "--no-build-isolation", "-e", str(ROOT))


def install(env: Environment, *arguments: str, lax: bool = False) -> None:
    """Installs with uv, or with the environment's own pip where uv is not there or cannot."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv and not lax:
        tool = [uv, "pip", "install", "--python", str(env.python), "--compile-bytecode", "--quiet"]
        settings = {**os.environ, **pip_settings_for_uv()}
        if subprocess.run([*tool, *arguments], env=settings, check=False).returncode == 0:
            return
        print(f"{env.name}: uv could not install it; pip tries.", flush=True)
    options = ["--quiet", *(["--ignore-requires-python"] if lax else [])]
    run(str(env.python), "-m", "pip", "install", *options, *arguments)


def pip_settings_for_uv() -> dict[str, str]:
    """Where pip is told to look for packages, in uv's variables, as uv does not read pip's configuration."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    # As pip does: the version counts, not which index has it.
    settings = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    for pip, uv in (
        ("index-url", "UV_DEFAULT_INDEX"),
        ("extra-index-url", "UV_INDEX"),
        ("find-links", "UV_FIND_LINKS"),
        ("cert", "SSL_CERT_FILE"),
    ):
        values = re.findall(rf"^(?:global|install|:env:)\.{pip}='(.*)'$", told, re.MULTILINE)
        if values and uv not in os.environ:
            settings[uv] = values[-1]
    return settings


def find_python(versions: list[str]) -> tuple[str, str]:
    """An interpreter of the first of some versions that is here, and the version that was wanted most."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for wanted in versions:
        beside = sorted(pyenv.glob(f"{wanted}*/bin/python{wanted}"))
        on_path = shutil.which(f"python{wanted}")
        for candidate in [*map(str, beside), *([on_path] if on_path else []), sys.executable]:
            if python_fits(candidate, wanted):
                return candidate, versions[0]
    sys.exit(
        f"This needs Python {' or '.join(versions)}, and none of them was found on the PATH or in pyenv."
    )


def python_fits(python: str, wanted: str) -> bool:
    """Whether an interpreter runs and has a version such as 3.12."""
    return version(python) == wanted


def version(python: str) -> str:
    """`major.minor` of an interpreter; nothing if it does not run (a pyenv shim of a version that is not chosen)."""
    code = "import json, sys; print(json.dumps('%d.%d' % sys.version_info[:2]))"
    told = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return str(json.loads(told.stdout)) if told.returncode == 0 else ""


def run(*command: str) -> None:
    """Runs a command, or ends with its exit code."""
    done = subprocess.run(command, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command[:4])} … failed with exit code {done.returncode}.")


if __name__ == "__main__":
    sys.exit(main())
