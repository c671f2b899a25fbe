"""A provider file: where models are, what they cost, and which environment variable holds the key.

    kind: openai                        # a provider of LiteLLM, or melete, or echo
    api_key: ${OPENAI_API_KEY}          # by reference only; a key in the file is an error
    models:
      gpt-small: {model: gpt-5-mini, input_cost_per_token: 2.5e-7, output_cost_per_token: 2.0e-6}

It stands in `providers/<name>.yaml`; files of the user's folder win over the shipped examples of the same name. A
public model name means one model: two providers in use at once may not both offer it, as LiteLLM would then share
requests between them and the model that answers would not be the one that was named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from melete.documents import Shelf
from melete.errors import ConfigError
from melete.settings import Settings

PACKAGE = "melete.gateway.providers"
REFERENCE = re.compile(r"^\$\{([A-Za-z_][A-Za-z0-9_]*)\}$")
RESERVED = re.compile(r"^MELETE_GATEWAY_")
OURS = ("melete", "echo")
"""Kinds that LiteLLM does not know: our own server, and the scripted upstream that ships."""
PUBLIC_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:@/-]{0,99}$")

Endpoint = Literal["chat", "responses", "messages"]
Price = Annotated[float, Field(ge=0, le=1)]


class OfferedModel(BaseModel):
    """One model of a provider; prices are USD per token, and without them the price list of LiteLLM is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model: str | None = Field(
        None, min_length=1, description="Name at the provider; the public name by default."
    )
    input_cost_per_token: Price | None = Field(None, description="USD for a token of the prompt.")
    output_cost_per_token: Price | None = Field(None, description="USD for a token of the answer.")
    cache_read_cost_per_token: Price | None = Field(
        None, description="USD for a prompt token that a cache had."
    )
    cache_write_cost_per_token: Price | None = Field(
        None, description="USD for a prompt token that went into a cache."
    )
    serve: str | None = Field(
        None, min_length=1, description="Run, folder or hub id to serve (kind melete, served by bench run)."
    )


class Provider(BaseModel):
    """A provider and its models, as its file says."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(description="Name of the file.")
    description: str = Field("", description="One sentence for people.")
    kind: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$",
        description="A provider of LiteLLM (openai, anthropic, azure, gemini, hosted_vllm ...), melete or echo.",
    )
    base_url: str | None = Field(
        None, description="http(s)://host/path, or ${NAME}; the provider's own by default."
    )
    api_key: str | None = Field(None, description="${NAME} of the environment variable that holds the key.")
    speaks: list[Endpoint] | None = Field(
        None,
        min_length=1,
        description="Endpoints that an OpenAI-compatible address has; the others are translated.",
    )
    models: dict[str, OfferedModel] = Field(min_length=1, description="Public name to model.")
    timeout_s: float = Field(600.0, gt=0, le=86_400, description="Seconds after which a call has failed.")
    headers: dict[str, str] = Field({}, description="Further headers, each as ${NAME}.")
    options: dict[str, str | int | float | bool] = Field(
        {}, description="What LiteLLM needs besides, such as api_version for azure; secrets as ${NAME}."
    )
    script: str | None = Field(None, description="File of scripted answers (kind echo).")

    @field_validator("api_key")
    @classmethod
    def _key_by_reference(cls, value: str | None) -> str | None:
        return value if value is None else _reference(value, "a key")

    @field_validator("headers")
    @classmethod
    def _headers_by_reference(cls, headers: dict[str, str]) -> dict[str, str]:
        return {name: _reference(value, "the value of a header") for name, value in headers.items()}

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is None or REFERENCE.match(value):
            return value
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not an address. Write http(s)://host/path, or ${NAME}.")
        if parts.username or parts.password or parts.query:
            raise ValueError(
                "an address with a user, a password or a query may hold a secret. Use api_key or headers."
            )
        return value.rstrip("/")

    @field_validator("models")
    @classmethod
    def _names(cls, models: dict[str, OfferedModel]) -> dict[str, OfferedModel]:
        for name in models:
            if not PUBLIC_NAME.match(name):
                raise ValueError(f"{name!r} is no name of a model: letters, digits and . _ : @ / - only.")
        return models

    @field_validator("options")
    @classmethod
    def _no_secret(cls, options: dict[str, str | int | float | bool]) -> dict[str, str | int | float | bool]:
        for name, value in options.items():
            if re.search(r"key|secret|token|password|credential", name) and isinstance(value, str):
                _reference(value, f"the value of {name}")
            if name in CLOSED_OPTIONS:
                raise ValueError(f"{name} would let another model answer than the one that is named.")
        return options

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Provider:
        for name, model in self.models.items():
            if (model.input_cost_per_token is None) != (model.output_cost_per_token is None):
                raise ValueError(f"models.{name}: a price for the prompt and one for the answer go together.")
        served = [name for name, model in self.models.items() if model.serve]
        if served and self.kind != "melete":
            raise ValueError(f"models.{served[0]}.serve: only kind melete serves runs.")
        if self.script and self.kind != "echo":
            raise ValueError("script: only kind echo plays a script.")
        return self

    @property
    def variables(self) -> list[str]:
        """Sorted names of the environment variables that this provider reads."""
        texts = [self.api_key, self.base_url, *self.headers.values(), *self.options.values()]
        return sorted(
            {found[1] for text in texts if isinstance(text, str) and (found := REFERENCE.match(text))}
        )

    def missing(self, environ: Mapping[str, str]) -> list[str]:
        """Those of its variables that an environment lacks or holds empty."""
        return [name for name in self.variables if not environ.get(name)]


CLOSED_OPTIONS = {
    "fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "num_retries", "max_retries", "cache",
    "mock_response", "model", "api_key", "api_base", "base_url", "custom_llm_provider", "timeout", "stream_timeout",
    "extra_headers", "tags", "order", "weight", "rpm", "tpm",
}  # fmt: skip
"""Options of a deployment that have a key of their own here, or that would move a request to another model."""


def shelf(settings: Settings) -> Shelf[Provider]:
    """The provider files: the user's `providers/`, then the examples that ship."""
    return Shelf("provider", Provider, settings.bench / "providers", PACKAGE)


def load(settings: Settings, name: str) -> Provider:
    """One provider by name.

    Raises:
        UnknownNameError: no file has that name.
        ConfigError: the file is wrong; the message names file, line and key.
    """
    return shelf(settings).read(name).record


def own(settings: Settings) -> list[Provider]:
    """All providers of the user's folder, sorted by name.

    Raises:
        ConfigError: a file is wrong; the message names file, line and key.
    """
    files = shelf(settings)
    return [files.read(name).record for name, path in files.paths().items() if path.parent == files.folder]


def offered(providers: Iterable[Provider]) -> dict[str, tuple[Provider, OfferedModel]]:
    """Public model name to its provider and model.

    Raises:
        ConfigError: two providers offer the same name.
    """
    found: dict[str, tuple[Provider, OfferedModel]] = {}
    for provider in providers:
        for name, model in provider.models.items():
            if name in found:
                raise ConfigError(
                    f"The providers {found[name][0].name} and {provider.name} both offer a model named {name!r}.",
                    allowed="A public name means one model, so that it is known which one answered.",
                    next_step=f"Rename it in one of the files, such as {provider.name}/{name}.",
                )
            found[name] = (provider, model)
    return found


def check_keys(providers: Iterable[Provider], environ: Mapping[str, str]) -> None:
    """Refuses providers whose environment variables are not set.

    Raises:
        ConfigError: names each provider and variable; no value is shown.
    """
    lacking = [(provider.name, missing) for provider in providers if (missing := provider.missing(environ))]
    if lacking:
        told = "; ".join(f"{name} needs {', '.join(missing)}" for name, missing in lacking)
        first = lacking[0]
        raise ConfigError(
            f"A provider is without its key: {told}.",
            allowed="Keys are read from the environment only, and stand in no file.",
            next_step=f"Set it with: export {first[1][0]}=... , or leave the provider out: --without {first[0]}",
        )


def _reference(value: str, what: str) -> str:
    found = REFERENCE.match(value)
    if found is None:
        # The value is not repeated: it may be the secret itself.
        raise ValueError(
            f"{what} is given by reference to the environment only, such as ${{PROVIDER_API_KEY}}."
        )
    if RESERVED.match(found[1]):
        raise ValueError(f"{found[1]} belongs to the gateway itself.")
    return value
