"""Pages of jobs, asked in process: every process as a form, drafts, the queue, what can be asked and by whom."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from jobs.queue_at_hand import job_file, queue_of, started_worker, until
from melete import access, find
from melete.access import Role, Who
from melete.api.alone import gated
from melete.api.whole import mounts
from melete.jobs.queue import opened
from melete.runs.process import config_class
from melete.settings import Settings
from melete.store import database
from melete.ui import form

FIELD = re.compile(r"<(input|select|textarea)\b([^>]*data-place=[^>]*)>")
HOSTILE = '"><script>x</script>'


class As:
    """Middleware: everybody is a visitor of one role."""

    def __init__(self, app: ASGIApp, role: Role) -> None:
        self.app, self.role = app, role

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        access.put(scope, Who("visitor", self.role, "cookie"))
        await self.app(scope, receive, send)


def site_of(settings: Settings, role: Role = Role.OPERATE) -> TestClient:
    """Pages and API for visitors of a role."""
    routes = [Mount(path, one) for path, one in mounts(settings).items()]
    return TestClient(
        Starlette(routes=routes, middleware=[Middleware(As, role=role)]), follow_redirects=False
    )


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """An empty home."""
    return Settings.of(tmp_path_factory.mktemp("jobs"))


@pytest.fixture(scope="module")
def site(lab: Settings) -> Iterator[TestClient]:
    """Pages and API over it."""
    with site_of(lab) as made:
        yield made


def fields(text: str) -> dict[tuple[Any, ...], dict[str, str]]:
    """The fields of a form by their places: their attributes."""
    found = {}
    for _, attributes in FIELD.findall(text):
        pairs = {key: html.unescape(value) for key, value in re.findall(r'([\w-]+)="([^"]*)"', attributes)}
        found[tuple(json.loads(pairs["data-place"]))] = pairs
    return found


def draft(site: TestClient, text: str, *edits: dict[str, Any]) -> dict[str, Any]:
    """What comes back to a change."""
    answer = site.post("/parts/jobs/draft", json={"text": text, "edits": list(edits)})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.parametrize("name", find.processes())
def test_form_of_any_process_has_every_option_and_its_text_gives_them_back(
    site: TestClient, name: str
) -> None:
    cls = config_class(name)
    shown = fields(site.get("/jobs/new", params={"process": name}).text)
    tops = {place[3] for place in shown if place[:3] == ("processes", 0, "config")}
    assert tops == set(cls.model_fields)

    example = find.process(name).EXAMPLE
    text = site.post(f"/api/v1/processes/{name}/job", json={}).json()["text"]
    edits = []
    for key, value in example.items():
        place = ("processes", 0, "config", key)
        reads = shown[place]["data-reads"]
        edits.append({"place": place, "reads": reads, "raw": form.said(value, reads)})
    answer = draft(site, text, *edits)
    assert answer["ok"], answer["marks"]
    checked = site.post("/api/v1/jobs/check", json={"text": answer["text"]}).json()
    assert checked["steps"][0]["config"] == json.loads(cls(**example).model_dump_json())
    again = fields(answer["form"])
    for key, value in example.items():
        one = again["processes", 0, "config", key]
        if one["data-reads"] != "boolean" and "value" in one:
            assert one["value"] == form.said(value, one["data-reads"])


def test_change_of_the_form_keeps_what_else_was_written(site: TestClient) -> None:
    text = "# why\nname: a  # short\nprocesses:\n  - process: trial.count\n    config: {steps: 3}\n"
    edit = {"place": ["processes", 0, "config", "steps"], "reads": "integer", "raw": "4"}
    assert draft(site, text, edit)["text"] == text.replace("3", "4")


def test_emptied_field_has_its_default_again(site: TestClient) -> None:
    text = "name: a\nprocesses:\n  - process: trial.count\n    config: {steps: 3}\n"
    edit = {"place": ["processes", 0, "config", "steps"], "reads": "integer", "raw": " "}
    assert "config" not in draft(site, text, edit)["text"]


def test_wrong_value_is_said_at_its_field_and_on_its_line(site: TestClient) -> None:
    text = "name: a\nprocesses:\n  - process: trial.count\n    config: {steps: many}\n"
    answer = draft(site, text)
    assert [one["line"] for one in answer["marks"]] == [4]
    assert re.search(r'id="f-processes-0-config-steps-problem">[^<]*valid integer', answer["form"])
    assert "aria-invalid" in answer["form"]
    assert not answer["ok"]


def test_text_that_is_no_yaml_has_no_form_and_its_line(site: TestClient) -> None:
    answer = draft(site, "name: a\nprocesses: [\n")
    assert answer["form"] is None
    assert answer["text"] == "name: a\nprocesses: [\n"
    assert answer["marks"][0]["message"].startswith("not YAML")


def test_process_that_is_added_gets_a_name_of_its_own_and_can_move(site: TestClient) -> None:
    text = "name: a\nprocesses:\n  - process: trial.count\n"
    answer = draft(site, text, {"add": "trial.count"})
    assert answer["ok"]
    assert "name: count-2" in answer["text"]
    moved = draft(site, answer["text"], {"place": ["processes", 1], "act": "up"})
    assert moved["text"].index("count-2") < moved["text"].rindex("- process")


def test_hostile_text_is_only_text(site: TestClient) -> None:
    answer = draft(site, f"name: {json.dumps(HOSTILE)}\nprocesses:\n  - process: {json.dumps(HOSTILE)}\n")
    assert "<script>" not in answer["form"] + answer["side"]
    assert "&lt;script&gt;" in answer["side"]


@pytest.mark.parametrize("asked", ["process=no.such", "example=none", "job=none"])
def test_unknown_beginning_is_404_with_what_is_known(site: TestClient, asked: str) -> None:
    answer = site.get(f"/jobs/new?{asked}")
    assert answer.status_code == 404
    assert 'role="alert"' in answer.text


def test_choices_are_found_by_words_of_their_description(site: TestClient) -> None:
    found = site.get("/parts/jobs/choices", params={"q": "tokenizer bytes"}).text
    assert "process=llm.tokenizer" in found
    assert "process=bench.run" not in found


@pytest.fixture
def job(lab: Settings, tmp_path: Any) -> str:
    """A queued job of two processes."""
    with opened(lab) as queue:
        return str(queue.submit(job_file(tmp_path, {"config": {"steps": 3}}, {}, name="two")).id)


def test_list_says_why_a_job_waits_and_what_to_do(site: TestClient, job: str) -> None:
    page = site.get("/jobs", params={"state": "queued", "name": "TWO"}).text
    assert f'href="/jobs/{job}"' in page
    assert "no worker is alive" in page
    assert "melete worker" in page
    assert 'data-live="/parts/jobs/table?state=queued&amp;name=TWO"' in page


def test_list_without_a_match_leads_back(site: TestClient, job: str) -> None:
    assert "No such job" in site.get("/jobs", params={"state": "failed", "name": "none"}).text


def test_stop_and_resume_are_asked_and_told(site: TestClient, lab: Settings, job: str) -> None:
    stopped = site.post(f"/jobs/{job}/stop", headers={"HX-Request": "true"})
    assert (stopped.status_code, "two stops" in stopped.headers["hx-trigger"]) == (204, True)
    assert f"/jobs/{job}/resume" in site.get(f"/parts/jobs/{job}/steps").text
    site.post(f"/jobs/{job}/resume")
    with opened(lab) as queue:
        assert queue.get(job).state == "queued"


def test_retry_sends_only_what_was_changed(site: TestClient, lab: Settings, job: str) -> None:
    site.post(f"/jobs/{job}/kill")
    shown = site.get(f"/parts/jobs/{job}/change", params={"step": "p0"}).text
    sent = dict(re.findall(r'<input id="[^"]*" name="([^"]+)"[^>]* value="([^"]*)"', shown))
    assert sent["f-config-steps"] == "3"
    again = site.post(
        f"/jobs/{job}/retry/p0", data={**sent, "f-config-steps": "5"}, headers={"HX-Request": "true"}
    )
    assert again.headers["hx-redirect"] == f"/jobs/{job}"
    with opened(lab) as queue:
        assert queue.get(job).steps[0].config == {"steps": 5}


def test_retry_with_a_wrong_value_says_so_at_the_field(site: TestClient, job: str) -> None:
    site.post(f"/jobs/{job}/kill")
    again = site.post(f"/jobs/{job}/retry/p0", data={"f-config-steps": "0"}, headers={"HX-Request": "true"})
    assert re.search(r'id="f-config-steps-problem">[^<]*greater', again.text)


def test_submit_goes_to_the_job(site: TestClient) -> None:
    text = "name: sent\nprocesses:\n  - {process: trial.count}\n"
    answer = site.post("/jobs", data={"text": text, "priority": "7", "limit_batches": "2"})
    assert answer.status_code == 303
    page = site.get(answer.headers["location"]).text
    assert ("<h1>sent</h1>" in page, "priority 7" in page) == (True, True)


def test_submit_of_a_wrong_text_is_refused_with_its_line(site: TestClient) -> None:
    answer = site.post("/jobs", data={"text": "name: a\n"}, headers={"HX-Request": "true"})
    assert answer.status_code == 400
    assert "processes" in answer.text


def test_visitor_who_may_only_look_gets_no_buttons_and_is_refused(lab: Settings, job: str) -> None:
    with site_of(lab, Role.READ) as visitor:
        page = visitor.get(f"/jobs/{job}")
        assert (page.status_code, "hx-post" in page.text) == (200, False)
        assert visitor.post(f"/jobs/{job}/stop").status_code == 403
        assert visitor.get("/jobs/new?process=llm.tokenizer").status_code == 200


def test_job_that_is_not_there_is_said_with_the_way_out(site: TestClient) -> None:
    answer = site.get("/jobs/20261120-000000-none-0000")
    assert answer.status_code == 404
    assert "There is no job" in answer.text


@pytest.mark.slow
def test_worker_without_the_extra_of_a_process_says_how_to_install_it_everywhere(
    home: Settings, tmp_path: Path, call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = tmp_path / "lacking"
    lacking.mkdir()
    (lacking / "torch.py").write_text(
        'raise ModuleNotFoundError("No module named \'torch\'", name="torch")\n'
    )
    monkeypatch.setenv("PYTHONPATH", str(lacking))
    step = {"process": "llm.tokenizer", "name": "words", "config": {"data": "stdlib"}, "retries": 3}
    with queue_of(home) as queue:
        job = queue.submit(job_file(tmp_path, step))
        with started_worker(home, "--gpus", "none"):
            until(lambda: queue.get(job.id).state == "failed")
        assert queue.get(job.id).steps[0].attempt == 1  # trying again would not bring the library
    says = "pip install 'melete[train]'"
    assert says in call("jobs", "show", job.id)[1]
    with site_of(home) as pages:
        assert says in pages.get(f"/api/v1/jobs/{job.id}").json()["steps"][0]["error"]
        assert says in html.unescape(pages.get(f"/jobs/{job.id}").text)


def test_page_over_a_store_of_a_newer_version_says_what_to_do(home: Settings) -> None:
    with database.connect(home.database) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999_later'")
    pages = TestClient(gated(home), base_url="http://127.0.0.1:8675", client=("127.0.0.1", 1))
    for path in ("/", "/jobs", "/jobs/new", "/runs"):
        refused = pages.get(path, headers={"Accept": "text/html"})
        assert refused.status_code == 503
        assert "9999_later, newer than this program" in refused.text
        assert "Use the newer Melete" in refused.text
