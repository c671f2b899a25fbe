"""Provider files and the config that LiteLLM gets: secrets by reference only, one model for one name."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway_at_hand import settings_in
from melete.errors import ConfigError
from melete.gateway import config, provider
from melete.gateway.environment import WARM_MODEL
from melete.gateway.provider import Provider
from melete.runs.folder import replace_file
from melete.settings import Settings

SECRET = "sk-live-0123456789abcdef"
WARM_URL = "http://127.0.0.1:9/v1"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


def write(settings: Settings, name: str, text: str) -> Path:
    folder = settings.bench / "providers"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(text)
    return folder / f"{name}.yaml"


def made(name: str = "one", **fields: Any) -> Provider:
    return Provider.model_validate({"name": name, "kind": "openai", "models": {"small": {}}, **fields})


def deployment(one: Provider) -> dict[str, Any]:
    found: dict[str, Any] = config.document([one], WARM_URL)["model_list"][0]
    return found


def test_load_of_a_file_with_a_reference_reads_the_provider(settings: Settings) -> None:
    write(settings, "mine", "kind: openai\napi_key: ${MY_KEY}\nmodels:\n  small: {model: gpt-5-mini}\n")
    found = provider.load(settings, "mine")
    assert (found.name, found.kind, found.variables) == ("mine", "openai", ["MY_KEY"])
    assert found.models["small"].model == "gpt-5-mini"


@pytest.mark.parametrize(
    "line",
    [
        f"api_key: {SECRET}",
        f"headers: {{X-Key: {SECRET}}}",
        f"options: {{aws_secret_access_key: {SECRET}}}",
        f"base_url: https://user:{SECRET}@host/v1",
        f"base_url: https://host/v1?key={SECRET}",
    ],
)
def test_load_of_a_file_with_a_secret_in_it_names_file_line_and_key_but_not_the_secret(
    settings: Settings, line: str
) -> None:
    file = write(settings, "mine", f"kind: openai\n{line}\nmodels:\n  small: {{}}\n")
    with pytest.raises(ConfigError) as caught:
        provider.load(settings, "mine")
    assert f"{file}:2: {line.split(':')[0]}" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"models": {}}, "at least 1"),
        ({"models": {"a b": {}}}, "no name of a model"),
        ({"models": {"*": {}}}, "no name of a model"),
        ({"models": {"small": {"serve": "run"}}}, "only kind melete"),
        ({"models": {"small": {"input_cost_per_token": 1e-6}}}, "go together"),
        ({"models": {"small": {"input_cost_per_token": -1.0, "output_cost_per_token": 0.0}}}, "greater than"),
        ({"script": "x.yaml"}, "only kind echo"),
        ({"base_url": "ftp://host"}, "not an address"),
        ({"api_key": "${MELETE_GATEWAY_MASTER_KEY}"}, "belongs to the gateway"),
        ({"options": {"fallbacks": "other"}}, "another model answer"),
        ({"options": {"num_retries": 3}}, "another model answer"),
        ({"kind": "Open AI"}, "match pattern"),
        ({"timeout_s": 0.0}, "greater than 0"),
        ({"keys": "x"}, "Extra inputs"),
        ({"speaks": ["telepathy"]}, "'chat', 'responses' or 'messages'"),
    ],
)
def test_provider_with_a_bad_value_is_refused(fields: dict[str, Any], shown: str) -> None:
    with pytest.raises(ValidationError, match=shown):
        made(**fields)


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in provider.shelf(settings_in(Path("/"))).paths().values())
)
def test_shipped_example_reads_and_becomes_a_config(settings: Settings, name: str) -> None:
    one = provider.load(settings, name)
    models = config.document([one], WARM_URL)["model_list"]
    assert [model["model_name"] for model in models] == [*one.models, WARM_MODEL]
    assert one.description


def test_own_reads_the_users_files_and_no_shipped_ones(settings: Settings) -> None:
    assert provider.own(settings) == []
    write(settings, "echo", "kind: echo\nmodels:\n  mine: {}\n")
    assert [list(one.models) for one in provider.own(settings)] == [["mine"]]
    assert list(provider.load(settings, "echo").models) == ["mine"]


def test_offered_with_a_name_twice_names_both_providers() -> None:
    with pytest.raises(ConfigError, match="one and two both offer a model named 'small'"):
        provider.offered([made("one"), made("two")])


def test_check_keys_without_them_names_provider_variable_and_next_step() -> None:
    needy = [made("one", api_key="${A_KEY}"), made("two", headers={"X-Team": "${TEAM}"})]
    with pytest.raises(ConfigError) as caught:
        provider.check_keys(needy, {"A_KEY": "", "OTHER": "x"})
    assert "one needs A_KEY; two needs TEAM" in str(caught.value)
    assert "export A_KEY=" in str(caught.value)
    provider.check_keys(needy, {"A_KEY": "x", "TEAM": "y"})


def test_document_holds_secrets_as_references_only() -> None:
    one = made(
        api_key="${A_KEY}", headers={"X-Team": "${TEAM}"}, base_url="${WHERE}", options={"api_version": "v1"}
    )
    parameters = deployment(one)["litellm_params"]
    assert parameters["api_key"] == "os.environ/A_KEY"
    assert parameters["extra_headers"] == {"X-Team": "os.environ/TEAM"}
    assert parameters["api_base"] == "os.environ/WHERE"
    assert parameters["api_version"] == "v1"


def test_document_lets_nothing_answer_but_the_named_model() -> None:
    whole = config.document([made()], WARM_URL)
    assert whole["router_settings"] == {"num_retries": 0, "disable_cooldowns": True}
    assert whole["litellm_settings"]["num_retries"] == 0
    assert whole["litellm_settings"]["cache"] is False
    assert whole["litellm_settings"]["drop_params"] is False
    assert "fallback" not in json.dumps(whole)
    assert all(model["litellm_params"]["max_retries"] == 0 for model in whole["model_list"])


def test_document_knows_the_deployment_by_provider_and_name() -> None:
    found = deployment(made(models={"small": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}}))
    assert found["model_info"] == {"id": "one/small", "provider": "one", "priced": True}
    assert found["litellm_params"]["input_cost_per_token"] == 1e-6
    assert "cache_read_input_token_cost" not in found["litellm_params"]


@pytest.mark.parametrize(
    ("fields", "prefix"),
    [
        ({}, "openai"),
        ({"speaks": ["chat"]}, "custom_openai"),
        ({"speaks": ["chat", "responses"]}, "openai"),
        ({"kind": "melete"}, "custom_openai"),
        ({"kind": "echo"}, "openai"),
        ({"kind": "anthropic"}, "anthropic"),
        ({"kind": "hosted_vllm"}, "hosted_vllm"),
    ],
)
def test_prefix_says_which_endpoints_of_an_upstream_are_used(fields: dict[str, Any], prefix: str) -> None:
    assert deployment(made(**fields))["litellm_params"]["model"] == f"{prefix}/small"


def test_document_of_an_upstream_that_speaks_messages_passes_them_through() -> None:
    found = deployment(made(speaks=["chat", "responses", "messages"]))
    assert found["model_info"]["supported_endpoints"] == ["/v1/messages"]


def test_document_puts_only_bounded_labels_on_metrics() -> None:
    closed = {"requested_model", "status_code", "exception_status", "exception_class", "model_group"}
    groups = config.document([made()], WARM_URL)["litellm_settings"]["prometheus_metrics_config"]
    assert {label for group in groups for label in group["include_labels"]} <= closed


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [({}, 50), ({"kind": "anthropic"}, 50), ({"kind": "melete"}, 4), ({"base_url": "http://10.0.0.1/v1"}, 4)],
)
def test_keepalive_of_local_servers_is_shorter_than_theirs(fields: dict[str, Any], seconds: int) -> None:
    assert config.keepalive_s([made(**fields)]) == seconds


def test_write_makes_a_file_for_its_owner_alone_and_replaces_it_whole(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("old")
    file.chmod(0o644)
    replace_file(file, "new", mode=0o600)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


@hypothesis.settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(
        st.from_regex(provider.PUBLIC_NAME), st.text(min_size=1, max_size=30), min_size=1, max_size=4
    )
)
def test_text_of_any_names_reads_back_as_the_same_config(models: dict[str, str]) -> None:
    one = made(models={name: {"model": upstream} for name, upstream in models.items()})
    whole = config.document([one], WARM_URL)
    assert yaml.safe_load(config.text(whole)) == whole
