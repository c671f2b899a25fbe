"""Dashboards and the compose file: every query is run as it stands, and every place they name is there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy
import yaml

from gateway_at_hand import at_hand
from lab_at_hand import REQUESTS_PER_SESSION, fill
from melete import find
from melete.gateway import sessions
from melete.gateway.config import scrape_key
from melete.records import SessionState
from melete.store import database
from postgres_at_hand import empty, postgres  # noqa: F401
from prometheus_at_hand import prometheus

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARDS = {
    file.stem: json.loads(file.read_text()) for file in sorted(DEPLOY.glob("grafana/dashboards/*.json"))
}
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SECRETS = re.findall(r"^([A-Z_]+)=$", (DEPLOY / "env.example").read_text(), re.M)
SPAN_S = 3_600


def queries(kind: str) -> list[tuple[str, str, dict[str, Any]]]:
    """(panel, query, target) of every query of a kind of datasource; those of variables too."""
    found = []
    for name, dashboard in DASHBOARDS.items():
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                if target["datasource"]["type"] == kind:
                    text = target.get("rawSql") or target["expr"]
                    found.append((f"{name}/{panel['title']}/{target['refId']}", text, target))
        for variable in dashboard["templating"]["list"]:
            if variable["datasource"]["type"] == kind:
                found.append((f"{name}/${variable['name']}", variable["definition"], {"format": "variable"}))
    return found


SQL = queries("grafana-postgresql-datasource")
PROMQL = queries("prometheus")


def expand_sql(text: str, from_s: int, to_s: int) -> str:
    """What Grafana makes of its macros and variables in SQL."""
    text = re.sub(r"\$__unixEpochFilter\(([\w.]+)\)", rf"\1 >= {from_s} AND \1 <= {to_s}", text)
    text = re.sub(r"\$__unixEpochGroupAlias\(([\w.]+), ?\$__interval\)", r'floor((\1)/60)*60 AS "time"', text)
    text = text.replace("'$experiment'", "'trial'").replace("($experiment)", "('trial','none')")
    assert "$" not in text, f"a macro that this test does not know: {text}"
    return text


def expand_promql(text: str) -> str:
    """What Grafana makes of its variables in PromQL."""
    text = text.replace("$__rate_interval", "20s").replace("$__range", "60s").replace("$variant", ".*")
    assert "$" not in text, f"a variable that this test does not know: {text}"
    return text


@pytest.mark.parametrize("name", DASHBOARDS)
def test_dashboard_lies_on_the_grid_and_reads_what_is_provisioned(name: str) -> None:
    dashboard = DASHBOARDS[name]
    provisioned = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/melete.yaml").read_text())
    known = {(source["type"], source["uid"]) for source in provisioned["datasources"]}
    assert dashboard["uid"] == f"melete-{name}"
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
        for source in [panel["datasource"], *(target["datasource"] for target in panel["targets"])]:
            assert (source["type"], source["uid"]) in known


@pytest.fixture(scope="module")
def reader(postgres: str) -> Iterator[sqlalchemy.Engine]:  # noqa: F811
    """A connection of the role that deploy/postgres/reader.sh makes, over a lab of the last hour."""
    empty(postgres)
    place = postgres.partition("host=")[2]
    environ = {
        "POSTGRES_USER": "melete",
        "POSTGRES_DB": "postgres",
        "READER_PASSWORD": "it's a 'secret'",
        "PGHOST": place,
    }
    if shutil.which("psql") is None:
        pytest.skip("psql is not installed (Debian: apt-get install postgresql-client)")
    script = ["sh", str(DEPLOY / "postgres" / "reader.sh")]
    subprocess.run(script, check=True, env={**os.environ, **environ}, capture_output=True)
    with database.connect(postgres) as connection:  # made after the role, as in a real start
        fill(connection, begun_s=time.time() - SPAN_S / 2)
    engine = sqlalchemy.create_engine(f"postgresql+psycopg://reader@/postgres?host={place}")
    yield engine
    engine.dispose()
    owner = sqlalchemy.create_engine(postgres.replace("postgresql:", "postgresql+psycopg:"))
    with owner.begin() as connection:
        connection.execute(sqlalchemy.text("DROP OWNED BY reader"))
        connection.execute(sqlalchemy.text("DROP ROLE reader"))
    owner.dispose()


@pytest.mark.postgres
@pytest.mark.parametrize(("panel", "text", "target"), SQL, ids=[panel for panel, _, _ in SQL])
def test_sql_of_a_panel_gives_rows_from_the_real_database(
    reader: sqlalchemy.Engine, panel: str, text: str, target: dict[str, Any]
) -> None:
    now_s = int(time.time()) + 1
    with reader.connect() as connection:
        result = connection.execute(
            sqlalchemy.text(expand_sql(text, now_s - SPAN_S, now_s).replace(":", r"\:"))
        )
        names, rows = list(result.keys()), result.all()
    assert rows, f"{panel} is empty"
    assert any(value is not None for value in rows[0])
    if target["format"] == "time_series":
        assert names[0] == "time"
        assert all(row[0] % 60 == 0 for row in rows)


@pytest.mark.postgres
def test_table_of_variants_is_what_the_lab_holds(reader: sqlalchemy.Engine) -> None:
    text = next(text for panel, text, _ in SQL if panel == "experiment/Variants/A")
    now_s = int(time.time()) + 1
    with reader.connect() as connection:
        found = connection.execute(sqlalchemy.text(expand_sql(text, now_s - SPAN_S, now_s))).mappings().all()
    assert [
        (row["variant"], row["sessions"], row["solved"], row["requests"], row["errors"]) for row in found
    ] == [
        ("careful", 6, 3, 6 * REQUESTS_PER_SESSION, 6),
        ("plain", 6, 3, 6 * REQUESTS_PER_SESSION, 6),
    ]
    assert float(found[0]["cost_per_solved"]) == pytest.approx(0.01)


@pytest.mark.postgres
def test_role_of_the_dashboards_can_change_nothing(reader: sqlalchemy.Engine) -> None:
    for statement in (
        "DELETE FROM request",
        "CREATE TABLE mine (x int)",
        "SET default_transaction_read_only = off; DELETE FROM request",
    ):
        with pytest.raises(sqlalchemy.exc.DBAPIError), reader.begin() as connection:
            connection.execute(sqlalchemy.text(statement))


@pytest.mark.slow
@pytest.mark.xdist_group("gateway")
def test_promql_of_every_panel_gives_numbers_from_the_real_prometheus() -> None:
    hand = at_hand()
    pages = {
        "litellm": (f"{hand.url}/metrics/", scrape_key(hand.settings)),
        "melete": (str(hand.gateway.metrics_url), None),
    }
    ended = hand.session()
    with database.connect(hand.settings.database) as connection:
        sessions.move(connection, ended.id, SessionState.LIVE)
        sessions.move(connection, ended.id, SessionState.FINALISED)
    with prometheus(pages) as server:
        server.wait_for("sum(up)", 2)
        lent = hand.session()
        said = {"messages": [{"role": "user", "content": "Hello"}], "model": "echo"}
        empty_handed: list[str] = []
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for stream in (False, True):
                answer = httpx.post(
                    f"{hand.url}/v1/chat/completions",
                    headers=lent.headers,
                    json={**said, "stream": stream},
                    timeout=60,
                )
                assert answer.status_code == 200
            refused = httpx.post(
                f"{hand.url}/v1/chat/completions", headers={"Authorization": "Bearer sk-x"}, json=said
            )
            assert refused.status_code == 401
            time.sleep(2)
            empty_handed = [panel for panel, text, target in PROMQL if not _numbers(server, text, target)]
            if not empty_handed:
                break
    assert empty_handed == []


def _numbers(server: Any, text: str, target: dict[str, Any]) -> bool:
    """Whether a query finds at least one number; an error of the server is an AssertionError."""
    variable = re.fullmatch(r"label_values\((\w+), (\w+)\)", text)
    if variable:
        parameters = {"match[]": variable[1]}
        with httpx.Client() as client:
            found = client.get(f"{server.url}/api/v1/label/{variable[2]}/values", params=parameters).json()[
                "data"
            ]
        return bool(found)
    assert target["instant"] is not target["range"]
    result = server.ask(expand_promql(text))
    return any(one["value"][1] not in ("NaN", "+Inf") for one in result)


def test_compose_names_files_that_are_there_and_pins_every_image() -> None:
    for name, service in COMPOSE["services"].items():
        image = service["image"]
        assert image == "melete:local" or re.fullmatch(r"[\w./-]+:v?\d+\.\d+(\.\d+)?", image), image
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["restart"] == "unless-stopped"
        for volume in service.get("volumes", []):
            source = volume.rsplit(":", 2 if volume.endswith(":ro") else 1)[0]
            if source.startswith("./"):
                assert (DEPLOY / source).exists(), source
            elif not source.startswith("${"):
                assert source in COMPOSE["volumes"], source
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        for other in service.get("depends_on", {}):
            assert other in COMPOSE["services"]


def test_compose_takes_every_secret_from_the_environment_and_refuses_to_do_without() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    for name in SECRETS:
        places = re.findall(rf"\$\{{{name}(:[?-])[^}}]*\}}", text)
        assert places, f"{name} is asked for and not used"
        assert set(places) == {":-" if name.endswith("_API_KEY") else ":?"}, name
    for service in COMPOSE["services"].values():
        for key, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|KEY|TOKEN", key):
                assert re.fullmatch(r"\$\{[A-Z_]+:[?-][^}]*\}", str(value)), key


def test_compose_is_one_that_docker_compose_accepts() -> None:
    program = shutil.which("docker-compose")
    command = [program] if program else ["docker", "compose"]
    if program is None and (
        shutil.which("docker") is None
        or subprocess.run([*command, "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("docker compose is not installed (Debian: apt-get install docker-compose)")
    check = [*command, "-f", str(DEPLOY / "compose.yaml"), "config", "-q"]
    secrets = {name: f"sk-{name.lower()}" for name in SECRETS}
    given = subprocess.run(check, env={**os.environ, **secrets}, capture_output=True, text=True, check=False)
    assert given.returncode == 0, given.stderr
    missing = subprocess.run(check, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert missing.returncode != 0
    assert "set it in deploy/.env" in missing.stderr


def test_prometheus_config_is_one_that_promtool_accepts(tmp_path: Path) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    (tmp_path / "scrape.key").write_text("sk-x")
    text = (DEPLOY / "prometheus.yml").read_text()
    (tmp_path / "prometheus.yml").write_text(text.replace("/prometheus/scrape.key", f"{tmp_path}/scrape.key"))
    checked = subprocess.run(
        [program, "check", "config", str(tmp_path / "prometheus.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    targets = {
        job["job_name"]: job["static_configs"][0]["targets"] for job in yaml.safe_load(text)["scrape_configs"]
    }
    commands = {name: service.get("command", []) for name, service in COMPOSE["services"].items()}
    assert targets == {"melete": ["exporter:9464"], "litellm": ["gateway:4000"]}
    assert commands["exporter"][-1] == "9464"
    assert "--port 4000" in (DEPLOY / "start.sh").read_text()


def test_containers_of_ours_run_commands_that_exist(call: Any) -> None:
    for name in ("exporter", "api"):
        words = COMPOSE["services"][name]["command"]
        code, out, _ = call(*[word for word in words[:2] if not word.startswith("-")], "--help")
        assert code == 0
        assert all(word in out for word in words if word.startswith("--"))
    assert {"gateway", "serve"} <= set(find.names("melete.cli"))


def test_image_copies_files_that_are_there_and_installs_extras_that_exist() -> None:
    text = (DEPLOY / "melete.dockerfile").read_text()
    for line in re.findall(r"^COPY (.*)$", text, re.M):
        assert all((DEPLOY.parent / source).exists() for source in line.split()[:-1]), line
    extras = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (wanted,) = re.findall(r"/src\[([a-z,]+)\]", text)
    assert set(wanted.split(",")) <= set(extras)


def test_start_script_puts_the_scrape_key_where_the_gateway_looks(tmp_path: Path) -> None:
    fake = tmp_path / "bin" / "melete"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\necho "$@ ${MELETE_SCRAPE_KEY:-gone}"\n')
    fake.chmod(0o755)
    environ = {
        "PATH": f"{fake.parent}:{os.environ['PATH']}",
        "MELETE_HOME": str(tmp_path / "home"),
        "MELETE_SCRAPE_KEY": "sk-scrape",
    }
    done = subprocess.run(
        ["sh", str(DEPLOY / "start.sh"), "gateway"], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout == "gateway up --foreground --host 0.0.0.0 --port 4000 gone\n"
    key = tmp_path / "home" / "gateway" / "scrape.key"
    assert (key.read_text(), key.stat().st_mode & 0o777) == ("sk-scrape", 0o600)
