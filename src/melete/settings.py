"""Where Melete keeps things, read once from `MELETE_*` variables and `.env`; nothing else reads the environment.

| variable          | meaning                                                        | default                        |
|-------------------|----------------------------------------------------------------|--------------------------------|
| `MELETE_HOME`     | home folder: runs, datasets, database                          | nearest `.melete/`, `~/.melete`|
| `MELETE_DATA`     | folder with local copies of known datasets                     | `../shared/data` if it exists  |
| `MELETE_DATABASE` | database URL (SQLite or PostgreSQL)                            | `sqlite:///HOME/melete.db`     |
| `MELETE_TOKEN`    | token that the server asks for                                 | none                           |
| `MELETE_BENCH`    | folder with the files of `melete bench`                        | `./bench` or `HOME/bench`      |
| `MELETE_LITELLM`  | the program `litellm` that the gateway starts                  | looked for by the gateway      |

`.env` is read from the working folder; real environment variables win. The nearest `.melete/` is looked for from
the working folder upwards, as git looks for `.git`, so that a project can keep its runs beside its code.
Secrets (`token`, a password in the database URL) are never shown by `repr`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from melete.errors import ConfigError

KNOWN = ("MELETE_HOME", "MELETE_DATA", "MELETE_DATABASE", "MELETE_TOKEN", "MELETE_BENCH", "MELETE_LITELLM")


@dataclass(frozen=True)
class Settings:
    """Resolved settings; build one with `load`."""

    home: Path
    data: Path | None
    database: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    bench_folder: Path | None = None
    litellm: Path | None = None

    @classmethod
    def of(cls, home: Path, token: str | None = None) -> Settings:
        """Settings of a home folder by itself: its database lies in it, and no other data is known."""
        return cls(home, data=None, database=f"sqlite:///{home / 'melete.db'}", token=token)

    @property
    def runs(self) -> Path:
        """Folder that holds one folder per run."""
        return self.home / "runs"

    @property
    def datasets(self) -> Path:
        """Folder that holds the datasets added by the user."""
        return self.home / "datasets"

    @property
    def gateway(self) -> Path:
        """Folder of the gateway: its config, state, logs and spool."""
        return self.home / "gateway"

    @property
    def bench(self) -> Path:
        """Folder that holds the user's providers, harness profiles, variants, experiments and task cards."""
        return self.bench_folder or self.home / "bench"


def load(environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> Settings:
    """Reads `.env` and the environment.

    Args:
        environ: variables to read, the process environment by default.
        cwd: folder from which `.env`, `.melete/`, `bench/` and `../shared/data` are looked for.

    Raises:
        ConfigError: a line of `.env` that is not `NAME=value`, or an unknown `MELETE_*` name in it.
    """
    cwd = cwd or Path.cwd()
    values = {**read_env_file(cwd / ".env"), **(os.environ if environ is None else environ)}
    home = Path(values["MELETE_HOME"]).expanduser() if values.get("MELETE_HOME") else _nearest_home(cwd)
    home = home if home.is_absolute() else cwd / home
    data = (
        Path(values["MELETE_DATA"]).expanduser()
        if values.get("MELETE_DATA")
        else cwd.parent / "shared" / "data"
    )
    bench = cwd / Path(values.get("MELETE_BENCH") or "bench").expanduser()
    return Settings(
        home=home,
        data=data if data.is_dir() else None,
        database=values.get("MELETE_DATABASE") or f"sqlite:///{home / 'melete.db'}",
        token=values.get("MELETE_TOKEN") or None,
        bench_folder=bench if values.get("MELETE_BENCH") or bench.is_dir() else None,
        litellm=Path(values["MELETE_LITELLM"]).expanduser() if values.get("MELETE_LITELLM") else None,
    )


def read_env_file(path: Path) -> dict[str, str]:
    """Reads the `MELETE_*` lines of a `.env` file; a file that is not there reads as empty.

    Raises:
        ConfigError: a line that is not `NAME=value`, or an unknown `MELETE_*` name.
    """
    values: dict[str, str] = {}
    if not path.is_file():
        return values
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip().removeprefix("export ")
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals:
            raise ConfigError(f"{path}:{number}: {line!r} is not NAME=value.")
        if name.startswith("MELETE_") and name not in KNOWN:
            raise ConfigError(
                f"{path}:{number}: {name} is not a setting.", allowed=f"Known: {', '.join(KNOWN)}."
            )
        if name.startswith("MELETE_"):
            values[name] = value.strip().strip("'\"")
    return values


def _nearest_home(cwd: Path) -> Path:
    for folder in (cwd, *cwd.parents):
        if (folder / ".melete").is_dir():
            return folder / ".melete"
    return Path.home() / ".melete"
