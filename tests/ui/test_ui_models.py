"""Pages of models in process: lists, one model, deploying from the form, going back, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from llm.tiny import own_checkpoint
from melete.agents.deploy import deploy
from melete.api import whole
from melete.api.serving import Serving
from melete.settings import Settings
from melete.ui.pages.models import graph
from runs_at_hand import fill_runs


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home with runs, one of them with a language model, and a deployed agent with two versions."""
    folder = tmp_path_factory.mktemp("models")
    settings = Settings.of(folder)
    _, second = fill_runs(settings)
    model = own_checkpoint(folder / "source", context=64)
    saved = settings.runs / second / "checkpoints"
    saved.mkdir(exist_ok=True)
    model.rename(saved / model.name)
    for _ in range(2):
        deploy("echo", settings, name="support", scenario="customer_support")
    return settings


@pytest.fixture(scope="module")
def client(home: Settings) -> Iterator[TestClient]:
    """The pages."""
    mounts = whole.mounts(home, Serving())
    with TestClient(mounts[whole.PAGES], base_url="http://127.0.0.1") as made:
        yield made


def test_list_shows_models_agents_and_a_drawing(client: TestClient) -> None:
    page = client.get("/models").text
    assert 'href="/models/deployments/support"' in page
    assert "second" in page
    assert "counter_v1.0" in page
    assert page.count('class="node ') >= 4


def test_empty_home_says_what_to_do(tmp_path: Path) -> None:
    settings = Settings.of(tmp_path)
    with TestClient(whole.mounts(settings, Serving())[whole.PAGES], base_url="http://127.0.0.1") as pages:
        assert "No model yet" in pages.get("/models").text


def test_one_model_offers_chat_download_and_deploying(client: TestClient) -> None:
    page = client.get("/models/second").text
    assert "Load &amp; chat" in page
    assert "/download?step=1" in page
    assert "Deploy</h2>" in page


def test_unknown_model_is_the_apis_404(client: TestClient) -> None:
    answer = client.get("/models/nobody")
    assert answer.status_code == 404
    assert "nobody" in answer.text


def test_terms_of_a_scenario_show_criteria_and_guard(client: TestClient) -> None:
    part = client.get("/parts/models/terms", params={"scenario": "customer_support"}).text
    assert "It has succeeded when" in part
    assert "rules</summary>" in part
    assert client.get("/parts/models/terms").text.strip() == ""


def test_deploying_makes_the_next_version_and_goes_to_it(client: TestClient) -> None:
    sent = {"name": "by-hand", "scenario": "customer_support", "step": "minor"}
    for version in ("1.0", "1.1"):
        answer = client.post("/models/second/deploy", data=sent, headers={"HX-Request": "true"})
        assert answer.headers["HX-Redirect"] == "/models/deployments/by-hand"
        assert f"by-hand_v{version}" in answer.headers["HX-Trigger"]
    answer = client.post("/models/second/deploy", data={**sent, "step": "major"}, follow_redirects=False)
    assert answer.status_code == 303
    assert "version <b>2.0</b> in use" in client.get("/models/deployments/by-hand").text


def test_refused_deployment_keeps_the_form_and_says_why(client: TestClient) -> None:
    sent = {"name": "no-terms", "scenario": ""}
    answer = client.post("/models/second/deploy", data=sent, headers={"HX-Request": "true"})
    assert answer.status_code == 200
    assert 'value="no-terms"' in answer.text
    assert "practised no scenario" in answer.text
    assert client.post("/models/second/deploy", data=sent).status_code == 400


def test_deployment_shows_versions_guard_criteria_and_a_command(client: TestClient) -> None:
    page = client.get("/models/deployments/support").text
    assert "Go back to 1.0" in page
    assert "intact" in page
    assert "/v1/agents/support/act" in page
    assert "Version 1.0</h2>" in client.get("/models/deployments/support?version=1.0").text


def test_going_back_puts_the_version_before_into_use(client: TestClient, home: Settings) -> None:
    deploy("echo", home, name="twice", scenario="customer_support")
    deploy("echo", home, name="twice", scenario="customer_support")
    answer = client.post("/models/deployments/twice/roll-back", headers={"HX-Request": "true"})
    assert answer.headers["HX-Redirect"] == "/models/deployments/twice"
    assert "version <b>1.0</b> in use" in client.get("/models/deployments/twice").text
    refused = client.post("/models/deployments/twice/roll-back", headers={"HX-Request": "true"})
    assert refused.status_code == 409


def test_graph_joins_models_by_the_checkpoints_they_are_made_of() -> None:
    newest = {"id": "b:2"}
    made = {"id": "agent_v1.0", "checkpoint": "b:2", "active": True}
    model = {"id": "b", "process": "llm.sft", "newest": newest, "made_of": ["dataset:d", "checkpoint:a:9"]}
    found = graph([{**model, "deployments": [made]}])
    edges = {(one["source"], one["target"]) for one in found["edges"]}
    assert edges == {
        ("dataset:d", "run:b"), ("run:a", "checkpoint:a:9"), ("checkpoint:a:9", "run:b"), ("run:b", "checkpoint:b:2"),
        ("checkpoint:b:2", "deployment:agent_v1.0"),
    }  # fmt: skip


def test_chat_page_has_no_inline_script_and_names_its_modules(client: TestClient) -> None:
    page = client.get("/chat")
    assert "<chat-box>" in page.text
    assert " style=" not in page.text
    assert "unsafe" not in page.headers["content-security-policy"]


def test_deployment_with_a_bare_guard_is_shown(client: TestClient) -> None:
    assert "0 rules" in client.get("/models/deployments/counter").text
