"""A request's life beside others: it ends when its client leaves, waits its turn, is refused when too many wait."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch

from melete.errors import CheckpointError, UnknownNameError
from melete.llm.checkpoint import load_model, save_model
from melete.runs.run import Run
from melete.serve import models
from melete.serve.server import Server
from melete.settings import Settings

from .conftest import echo_model

LONG: list[Any] = [{"role": "user", "content": "x" * 3000}]


def wait_until_idle(server: Server, model: str) -> None:
    """Returns when nothing runs in a model's engine; fails after ten seconds."""
    deadline = threading.Event()
    timer = threading.Timer(10, deadline.set)
    timer.start()
    while server.models[model].engine.stats().running and not deadline.is_set():
        deadline.wait(0.01)
    timer.cancel()
    assert not deadline.is_set(), "a request is still running"


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_leaves_cancels_its_request(tmp_path: Path, stream: bool) -> None:
    model = echo_model(interval_s=0.005)
    with Server({"echo": model}, Settings.of(tmp_path)) as running:
        body = {"model": "echo", "messages": LONG, "stream": stream}
        url = f"{running.url}/v1/chat/completions"
        if stream:
            with httpx.stream("POST", url, json=body) as response:
                next(response.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(url, json=body, timeout=0.3)
        wait_until_idle(running, "echo")
        assert model.engine.stats().generated_tokens < 1000


def test_full_queue_is_429_with_retry_after(tmp_path: Path) -> None:
    model = echo_model(slots=1, waiting=1, interval_s=0.005)
    with Server({"echo": model}, Settings.of(tmp_path)) as running:
        with openai.OpenAI(base_url=f"{running.url}/v1", api_key="x", max_retries=0) as client:
            first = client.chat.completions.create(model="echo", messages=LONG, stream=True)
            next(iter(first))
            while not model.engine.stats().running:
                pass
            second = client.chat.completions.create(model="echo", messages=LONG, stream=True)
            with pytest.raises(openai.RateLimitError, match="queue is full") as caught:
                client.chat.completions.create(model="echo", messages=LONG)
            assert int(caught.value.response.headers["Retry-After"]) >= 1
            first.close()
            second.close()
        wait_until_idle(running, "echo")


def test_stopping_server_tells_streams_that_are_cut_off(tmp_path: Path) -> None:
    running = Server({"echo": echo_model(interval_s=0.005)}, Settings.of(tmp_path))
    running.start()
    body = {"model": "echo", "messages": LONG, "stream": True}
    with httpx.stream("POST", f"{running.url}/v1/chat/completions", json=body, timeout=30) as response:
        lines = response.iter_lines()
        next(lines)
        running.models["echo"].engine.stop()
        assert "server_stopping" in "".join(lines)
    running.stop()


def test_streams_of_many_clients_are_each_whole(server: Server) -> None:
    results: dict[int, str] = {}

    def ask(i: int) -> None:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x") as client:
            made = client.chat.completions.create(
                model="echo", messages=[{"role": "user", "content": f"message {i} 🌍"}], stream=True
            )
            results[i] = "".join(chunk.choices[0].delta.content or "" for chunk in made)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: f"message {i} 🌍" for i in range(12)}


def newer_checkpoint(old: Path, folder: Path, step: int) -> Path:
    """The same model with other weights, in a run folder of its own."""
    model, tokenizer, _ = load_model(old)
    generator = torch.Generator().manual_seed(step)
    weights = {
        name: p.detach() + 0.5 * torch.randn(p.shape, generator=generator)
        for name, p in model.named_parameters()
    }
    run = Run(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = save_model(
        run, stage="rl", step=step, model_config=model.config, weights=weights, tokenizer=tokenizer
    )
    assert path is not None
    return path


def answer_of(server: Server) -> Any:
    """The greedy answer of the only model, as ids."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 12, "temperature": 0,
            "return_token_ids": True}  # fmt: skip
    return httpx.post(f"{server.url}/v1/chat/completions", json=body).json()["choices"][0]["token_ids"]


def test_reload_takes_newer_weights_while_a_stream_goes_on(checkpoint: Path, tmp_path: Path) -> None:
    settings = Settings.of(tmp_path)
    served = models.load_all([f"m={checkpoint}"], settings, device="cpu", slots=4)
    newer = newer_checkpoint(checkpoint, tmp_path / "newer", 2)
    with Server(served, settings) as running:
        before = answer_of(running)
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": 200,
                "seed": 1}  # fmt: skip
        with httpx.stream("POST", f"{running.url}/v1/chat/completions", json=body, timeout=30) as response:
            lines = response.iter_lines()
            next(lines)
            reply = httpx.post(f"{running.url}/v1/models/m/reload", json={"checkpoint": str(newer)})
            assert reply.json()["checkpoint"] == "step_00000002"
            assert list(lines)[-2] == "data: [DONE]"
        assert answer_of(running) != before
        assert served["m"].engine.stats().swaps == 1


def test_reload_without_a_name_takes_the_newest_of_the_run(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    old = newer_checkpoint(checkpoint, folder, 1)
    model = models.load(f"m={old}", Settings.of(tmp_path), device="cpu", slots=2)
    newest = newer_checkpoint(checkpoint, folder, 5)
    model.engine.start()
    assert model.reload(Settings.of(tmp_path)) == newest
    model.engine.stop()


def test_reload_of_another_shape_is_409_and_changes_nothing(server: Server, tmp_path: Path) -> None:
    from llm.tiny import own_checkpoint

    other = own_checkpoint(tmp_path / "other", width=32, context=64)
    reply = httpx.post(f"{server.url}/v1/models/tiny/reload", json={"checkpoint": str(other)})
    assert reply.status_code == 409
    assert "another shape" in reply.json()["error"]["message"]


def test_reload_of_unknown_name_is_404(server: Server) -> None:
    reply = httpx.post(f"{server.url}/v1/models/tiny/reload", json={"checkpoint": "no-such-run"})
    assert reply.status_code == 404


def test_swap_in_python_changes_the_weights(checkpoint: Path, tmp_path: Path) -> None:
    settings = Settings.of(tmp_path)
    served = models.load_all([f"m={checkpoint}"], settings, device="cpu", slots=2)
    model, _, _ = load_model(newer_checkpoint(checkpoint, tmp_path / "newer", 3))
    with Server(served, settings) as running:
        before = answer_of(running)
        running.swap(model.state_dict())
        assert answer_of(running) != before
        with pytest.raises(CheckpointError):
            running.swap({"nothing": torch.zeros(1)})
        with pytest.raises(UnknownNameError):
            running.swap(model.state_dict(), model="other")
