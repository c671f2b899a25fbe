"""A real Prometheus for tests: Debian's program as a child process, scraping what it is given twice a second."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import yaml


@dataclass(frozen=True)
class Prometheus:
    """A server that is up."""

    url: str

    def ask(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        """The result of an instant query."""
        return list(self.get("query", query=query, **parameters)["result"])

    def get(self, path: str, **parameters: Any) -> dict[str, Any]:
        """What the HTTP API says; an error is raised with its text."""
        address = f"{self.url}/api/v1/{path}?{urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=30) as response:
                return dict(json.load(response)["data"])
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error

    def wait_for(self, query: str, value: float, wait_s: float = 30.0) -> float:
        """Waits until the first value of a query is at least `value`, and returns it."""
        deadline = time.monotonic() + wait_s
        while True:
            found = self.ask(query)
            last = float(found[0]["value"][1]) if found else float("nan")
            if last >= value:
                return last
            assert time.monotonic() < deadline, f"{query} is {last} after {wait_s} s"
            time.sleep(0.2)


@contextmanager
def prometheus(targets: Mapping[str, tuple[str, str | None]]) -> Iterator[Prometheus]:
    """Runs one until the context ends; skips where the program is not there.

    Args:
        targets: job to the URL of a page and the bearer token it asks for.
    """
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("Prometheus is not installed (Debian: apt-get install prometheus)")
    jobs: list[dict[str, Any]] = []
    for job, (url, token) in targets.items():
        parts = urlsplit(url)
        jobs.append(
            {
                "job_name": job,
                "metrics_path": parts.path or "/",
                "static_configs": [{"targets": [parts.netloc]}],
            }
        )
        if token:
            jobs[-1]["authorization"] = {"type": "Bearer", "credentials": token}
    config = {"global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"}, "scrape_configs": jobs}
    place = Path(tempfile.mkdtemp(prefix="melete-prometheus-"))
    (place / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        program, f"--config.file={place}/prometheus.yml", f"--storage.tsdb.path={place}/data",
        f"--web.listen-address={address}", "--log.level=warn",
    ]  # fmt: skip
    with (place / "log").open("w") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "GOMAXPROCS": "1"})
    server = Prometheus(f"http://{address}")
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{server.url}/-/ready", timeout=5).close()
                break
            except OSError:
                assert child.poll() is None, (place / "log").read_text()
                assert time.monotonic() < deadline, "Prometheus did not become ready"
                time.sleep(0.1)
        yield server
    finally:
        child.terminate()
        child.wait(20)
        shutil.rmtree(place)
