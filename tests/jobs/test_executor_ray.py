"""Jobs on a real Ray cluster of two nodes: each lands where its resource is, and outlives the loss of its node."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from queue_at_hand import job_file, log_of, queue_of, started_worker, until

from melete.jobs.executors import ray
from melete.jobs.states import Wanted
from melete.runs.lines import read_json_lines
from melete.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]


class Cluster:
    """The cluster, as `ray_cluster.py` runs it."""

    def __init__(self) -> None:
        python = ray.python()
        if python is None:
            pytest.skip("Ray is not here: python tools/envs.py ray")
        self.process = subprocess.Popen(
            [python, Path(__file__).with_name("ray_cluster.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
        )
        self.address, self.big = self._answer(), self._answer()

    def ask(self, line: str) -> str:
        """Has a node removed or added."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One for the tests of this file, whose address workers find in their environment."""
    made = Cluster()
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("RAY_ADDRESS", made.address)
        yield made
    made.process.communicate(timeout=60)


def test_job_lands_on_the_node_that_has_the_resource(
    home: Settings, tmp_path: Path, cluster: Cluster
) -> None:
    step = {"executor": "ray", "needs": {"resources": {"big": 1.0}}, "config": {"steps": 2}}
    with queue_of(home) as queue:
        job = queue.submit(job_file(tmp_path, step))
        with started_worker(home, "--executor", "ray"):
            until(lambda: queue.get(job.id).state == "succeeded")
    assert f"Ray: on node {cluster.big}" in log_of(home, job)


def test_job_whose_node_is_lost_continues_on_another_from_its_checkpoint(
    home: Settings, tmp_path: Path, cluster: Cluster
) -> None:
    config = {"steps": 60, "hold_s": 0.1, "save_every": 1}
    step = {"executor": "ray", "needs": {"resources": {"big": 1.0}}, "config": config}
    with queue_of(home) as queue:
        job = queue.submit(job_file(tmp_path, step))
        with started_worker(home, "--executor", "ray"):
            until(lambda: list(home.runs.glob("*/checkpoints/step_00000003")))
            assert cluster.ask("remove big") == "removed"
            lost = cluster.big
            cluster.big = cluster.ask("add big")
            until(lambda: queue.get(job.id).state == "succeeded")
        (step_now,) = queue.get(job.id).steps
    assert step_now.attempt == 2
    (run,) = home.runs.iterdir()
    assert [line["step"] for line in read_json_lines(run / "metrics.jsonl")] == list(range(1, 61))
    log = log_of(home, job)
    assert f"Ray: on node {lost}" in log
    assert f"Ray: on node {cluster.big}" in log
    assert "Ray lost the task" in log
    assert f"continuing run {run.name}" in log


def test_process_that_waits_for_a_node_can_be_stopped(
    home: Settings, tmp_path: Path, cluster: Cluster
) -> None:
    step = {"executor": "ray", "needs": {"resources": {"nowhere": 1.0}}}
    with queue_of(home) as queue:
        job = queue.submit(job_file(tmp_path, step))
        with started_worker(home, "--executor", "ray"):
            until(lambda: "waiting for a node" in log_of(home, job))
            queue.ask(job.id, Wanted.STOP)
            until(lambda: queue.get(job.id).state == "stopped")


def test_worker_without_a_cluster_says_how_to_name_one(
    melete: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    if ray.python() is None:
        pytest.skip("Ray is not here: python tools/envs.py ray")
    done = melete("worker", "--executor", "ray", "--drain", RAY_ADDRESS="127.0.0.1:1")
    assert done.returncode == 5
    assert "no Ray cluster answers at 127.0.0.1:1 (Connection refused)" in done.stderr
    assert "Set RAY_ADDRESS=HOST:PORT" in done.stderr
