"""The plan of a gateway: everything that can be wrong is said here, before anything starts, and what a start is told.

A plan is what the supervisor reads from its stdin. Secrets are not in it; it knows them by keyed digests, so that a
gateway whose providers, keys or LiteLLM have changed is told from one that is up as it is asked for.
"""

from __future__ import annotations

import hmac
import importlib.util
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from melete import __version__
from melete.errors import ConfigError, MissingExtraError, UnknownNameError
from melete.gateway import config, program
from melete.gateway.provider import OURS, Provider, check_keys, offered
from melete.settings import Settings


@dataclass(frozen=True)
class Plan:
    """What a supervisor is told; secrets are not in it, they come through its environment.

    `database` is a digest of the database's URL; `digests` holds one of each provider and of the secrets it reads.
    """

    python: str
    version: str
    host: str
    database: str
    providers: tuple[Provider, ...]
    digests: dict[str, str]

    @property
    def digest(self) -> str:
        """Changes with whatever would make another gateway."""
        told = [
            __version__,
            self.python,
            self.version,
            self.host,
            self.database,
            sorted(self.digests.items()),
        ]
        return sha256(json.dumps(told).encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """The plan as text."""
        providers = [provider.model_dump() for provider in self.providers]
        return json.dumps({**self.__dict__, "providers": providers})

    @staticmethod
    def from_json(text: str) -> Plan:
        """Reads it back."""
        values = json.loads(text)
        providers = tuple(Provider.model_validate(one) for one in values.pop("providers"))
        return Plan(**values, providers=providers)


def prepare(settings: Settings, providers: Sequence[Provider], host: str) -> tuple[Plan, dict[str, str]]:
    """Checks all that a start needs; returns the plan, and the environment of the supervisor.

    Raises:
        GatewayError: LiteLLM is not installed.
        ConfigError: what a provider file says cannot be used as it is.
        StorageError: the database cannot be used.
    """
    from melete.store import database

    if not providers:
        raise ConfigError(
            "There is no provider, so the gateway would offer no model.",
            allowed=f"Providers are files in {settings.bench / 'providers'}.",
            next_step="Write some with: melete bench init   Or try the scripted one: --provider echo",
        )
    offered(providers)
    for one in providers:
        if one.kind == "melete" and one.base_url is None:
            raise ConfigError(
                f"The provider {one.name} has no base_url, so nobody serves its models yet.",
                next_step="Start melete serve and write its address there, or let melete bench run serve them.",
            )
    environ = {**os.environ, **({"MELETE_TOKEN": settings.token} if settings.token else {})}
    check_keys(providers, environ)
    for library in ("uvicorn", "starlette", "prometheus_client"):
        if importlib.util.find_spec(library) is None:
            raise MissingExtraError(library, "bench")
    found = program.find(settings)
    check_kinds(providers, found.python)
    with database.connect(settings.database):
        pass  # brings the schema to the newest revision, or says why that cannot be
    environ |= {
        "MELETE_HOME": str(settings.home),
        "MELETE_DATABASE": database.absolute(settings.database),
        "MELETE_BENCH": str(settings.bench.absolute()),
    }
    providers = [_with_script(settings, one) for one in providers]
    return _plan(settings, found, host, providers, environ), environ


def check_kinds(providers: Sequence[Provider], python: Path) -> None:
    """Refuses a kind that the LiteLLM of an interpreter does not know.

    Raises:
        UnknownNameError: names the closest kind.
    """
    text = ""
    for file in python.parent.parent.glob("lib/python3.*/site-packages/litellm/types/utils.py"):
        text = file.read_text(encoding="utf-8")
    listed = re.search(r"^class LlmProviders\(.*?(?=^\S)", text, re.MULTILINE | re.DOTALL)
    known = set(re.findall(r'= "([a-z0-9_]+)"', listed[0])) if listed else set()
    for provider in providers:
        if known and provider.kind not in known | set(OURS):
            raise UnknownNameError("kind of provider", provider.kind, known | set(OURS))


def _plan(
    settings: Settings,
    found: program.Program,
    host: str,
    providers: Sequence[Provider],
    environ: Mapping[str, str],
) -> Plan:
    """The plan with its digests; values of secrets go in keyed, so that nobody can try them against a digest."""
    from melete.gateway import entities

    salt = config.scrape_key(settings).encode()

    def keyed(text: str) -> str:
        return hmac.new(salt, text.encode("utf-8", "surrogateescape"), "sha256").hexdigest()[:16]

    digests = {
        one.name: entities.digest(
            {
                "provider": one.model_dump(mode="json"),
                "secrets": {name: keyed(environ.get(name, "")) for name in one.variables},
            }
        )[:16]
        for one in providers
    }
    return Plan(str(found.python), found.version, host, keyed(settings.database), tuple(providers), digests)


def _with_script(settings: Settings, one: Provider) -> Provider:
    """A provider whose script, if it is a file, is found from anywhere: in the bench folder, or here."""
    if one.script is None:
        return one
    places = (settings.bench / one.script, Path(one.script))
    file = next((place.absolute() for place in places if place.is_file()), None)
    return one.model_copy(update={"script": str(file)}) if file else one
