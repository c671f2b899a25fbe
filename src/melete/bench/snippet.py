"""A session's environment as text that a shell, a dotenv reader, a program or PowerShell understands.

Only the text is printed on stdout, so that `eval "$(melete bench session start …)"` works. Every value is quoted so
that it comes out as it went in, whatever stands in it; nothing in a value is ever expanded or run. A value that a
format cannot carry is an error, not a guess.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence

from melete.errors import ConfigError

FORMATS = ("shell", "dotenv", "json", "powershell")
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]*")


def render(kind: str, environment: Mapping[str, str], unset: Sequence[str] = ()) -> str:
    """The text that sets an environment.

    Args:
        kind: one of `FORMATS`.
        environment: names and values.
        unset: names to take away, where the format can.

    Raises:
        ConfigError: an unknown format, or a value that the format cannot carry; the value is not shown.
    """
    if kind not in FORMATS:
        raise ConfigError(f"{kind!r} is no format of a snippet.", allowed=f"Formats: {', '.join(FORMATS)}.")
    for name, value in environment.items():
        if "\0" in value:
            raise ConfigError(f"The value of {name} holds a zero byte, which no environment can carry.")
    return {"shell": _shell, "dotenv": _dotenv, "json": _json, "powershell": _powershell}[kind](
        environment, unset
    )


def _shell(environment: Mapping[str, str], unset: Sequence[str]) -> str:
    """POSIX sh: single quotes keep everything but a single quote (Shell Command Language, 2.2.2)."""
    lines = [f"unset {name}" for name in unset if name not in environment]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    return "\n".join(lines) + "\n"


def _dotenv(environment: Mapping[str, str], unset: Sequence[str]) -> str:
    """Readers of `.env` files disagree about escapes, so only what all of them read alike is written."""
    lines = []
    for name, value in environment.items():
        if _PLAIN.fullmatch(value):
            lines.append(f"{name}={value}")
        elif not re.search(r"['\\\r\n]|\$\{", value):
            lines.append(f"{name}='{value}'")
        else:
            raise ConfigError(
                f"The value of {name} holds a quote, a backslash, a line break or ${{, which readers of .env files "
                "take differently.",
                next_step="Use --format json or shell.",
            )
    return "\n".join(lines) + "\n"


def _json(environment: Mapping[str, str], unset: Sequence[str]) -> str:
    return json.dumps({"environment": dict(environment), "unset": list(unset)}, indent=1) + "\n"


def _powershell(environment: Mapping[str, str], unset: Sequence[str]) -> str:
    """PowerShell: a single-quoted string is literal; each of its five quote characters is doubled inside.

    PowerShell language specification, 2.3.5.2 (verbatim string literals): `'` and the typographic U+2018 to U+201B.
    """
    lines = [
        f"Remove-Item Env:{name} -ErrorAction SilentlyContinue" for name in unset if name not in environment
    ]
    for name, value in environment.items():
        quoted = re.sub("(['\u2018\u2019\u201a\u201b])", r"\1\1", value)
        lines.append(f"$env:{name} = '{quoted}'")
    return "\n".join(lines) + "\n"
