"""What a harness inherits of the environment in which Melete runs, and which of its programs are found.

Withheld is whatever could let it talk to a provider past the gateway: keys, tokens, other addresses. Its own programs
come first on the PATH, from the environment that was made for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import melete
from melete.bench import provenance
from melete.bench.harness_profile import PLACEHOLDERS, HarnessProfile, render
from melete.settings import Settings

WITHHELD = (
    "KEY",
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "CREDENTIALS",
    "BASE_URL",
    "API_BASE",
    "DATABASE",
    "DATABASE_URL",
)
"""Endings of variables that a harness does not inherit: with a provider's own key it could go around the gateway."""


def inherited(profile: HarnessProfile, settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """What a harness inherits: no secret, no other address to talk to, and its own programs first on the PATH."""
    kept = {
        name: value
        for name, value in environ.items()
        if not name.upper().endswith(WITHHELD)
        and not name.startswith("MELETE_GATEWAY_")
        and name not in profile.unset
    }
    places = [place for place in programs(profile, settings) if place.is_dir()]
    kept["PATH"] = os.pathsep.join([*map(str, places), environ.get("PATH", os.defpath)])
    return kept


def programs(profile: HarnessProfile, settings: Settings) -> list[Path]:
    """Folders in which the programs of a harness may be: the environment that was made for it."""
    if profile.installed_in is None:
        return []
    roots = [settings.home / "envs", Path(melete.__file__).parents[2] / ".envs"]
    return [root / profile.installed_in / part for root in roots for part in ("bin", "node_modules/.bin")]


def version(profile: HarnessProfile, settings: Settings) -> str | None:
    """What the harness's version command prints; None without one, or where it fails."""
    if not profile.version_command:
        return None
    command = [
        render(text, {**dict.fromkeys(PLACEHOLDERS, ""), "python": sys.executable})
        for text in profile.version_command
    ]
    return provenance.version_of(command, inherited(profile, settings, os.environ))
