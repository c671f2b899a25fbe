"""Runs in `.envs/agentlightning03`: Agent Lightning 0.3.0's store, runners and adapter, in one process.

Its runners are threads (strategy `shm`); each asks the process that started this one to play a rollout and waits for
what the policy wrote and for the reward, which it returns as spans. The spans go through the store and the stock
adapter, and come back as triplets. A tracer that does nothing takes the place of the stock ones, which fail in threads
and lose spans with OpenTelemetry 1.45; no LLM proxy is used. Lines from and to the other process:

    in   publish {model, endpoint, version, sampling}   submit {orders}   played {id, calls, reward, told}
    out  ready {version}   play {order, version}   finished {id, status, calls, reward, told}
"""

import asyncio
import contextlib
import importlib.metadata
import json
import os
import queue
import sys
import threading
import time
from typing import Any

said = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print is for the log
config = json.loads(sys.stdin.readline())
os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "AGENTOPS_LOGGING_TO_FILE": "false"}

import agentlightning as agl  # type: ignore[import-not-found,unused-ignore]  # noqa: E402
from agentlightning.types import SpanCoreFields, TraceStatus  # type: ignore[import-not-found,unused-ignore]  # noqa: E402

POLL_S = 0.02
lock = threading.Lock()
commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
answers: dict[str, queue.SimpleQueue[dict[str, Any]]] = {}
told: dict[str, dict[str, Any]] = {}


def say(what: str, **fields: Any) -> None:
    """Writes one line to the other process."""
    with lock:
        print(json.dumps({"what": what, **fields}), file=said, flush=True)


def read() -> None:
    """Reads lines until there are no more, and then ends this process."""
    for line in sys.stdin:
        message = json.loads(line)
        if message["what"] == "played":
            answers.pop(message["id"]).put(message)
        else:
            commands.put(message)
    os._exit(0)


class NullTracer(agl.DummyTracer):  # type: ignore[misc,unused-ignore]
    """A tracer that traces nothing, so that runners can share it among threads."""

    @contextlib.asynccontextmanager
    async def trace_context(self, *args: Any, **kwargs: Any) -> Any:
        """See agentlightning."""
        yield None

    def get_last_trace(self) -> list[Any]:
        """See agentlightning."""
        return []


class Asking(agl.LitAgent):  # type: ignore[misc,unused-ignore]
    """The agent of the runners: has the rollout played by the other process, and returns its spans."""

    def rollout(self, task: dict[str, Any], resources: dict[str, Any], rollout: Any) -> list[Any]:
        """See agentlightning."""
        answer: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        answers[task["id"]] = answer
        llm = resources["policy"]
        say("play", order=task, version=llm.sampling_parameters["version"])
        played = answer.get()
        told[task["id"]] = played["told"]
        calls = [span_of(call, i, llm.model) for i, call in enumerate(played["calls"])]
        return [*calls, agl.emit_reward(played["reward"], propagate=False)]


def span_of(call: dict[str, Any], index: int, model: str) -> Any:
    """A completion in the attributes that the stock adapter reads; it sorts by the time."""
    now_s = time.time() + index * 1e-6
    attributes = {
        "prompt_token_ids": call["prompt_ids"],
        "response_token_ids": call["response_ids"],
        "logprobs.content": json.dumps([{"logprob": value} for value in call["logprobs"]]),
        "gen_ai.response.id": f"call-{index}",
        "gen_ai.request.model": model,
    }
    return SpanCoreFields(
        name="openai.chat.completion",
        status=TraceStatus(status_code="OK"),
        attributes=attributes,
        start_time=now_s,
        end_time=now_s,
    )


@agl.algo  # type: ignore[untyped-decorator,unused-ignore]
async def keep_books(store: Any, adapter: Any) -> None:
    """Publishes and queues what is asked for, and tells of rollouts that have ended, for ever."""
    running: dict[str, str] = {}
    say("ready", version=importlib.metadata.version("agentlightning"))
    while True:
        with contextlib.suppress(queue.Empty):
            while True:
                message = commands.get_nowait()
                if message["what"] == "publish":
                    sampling = {**message["sampling"], "version": message["version"]}
                    llm = agl.LLM(
                        endpoint=message["endpoint"], model=message["model"], sampling_parameters=sampling
                    )
                    await store.add_resources({"policy": llm})
                else:
                    for order in message["orders"]:
                        rollout = await store.enqueue_rollout(input=order, mode=order["mode"])
                        running[rollout.rollout_id] = order["id"]
        if not running:
            await asyncio.sleep(POLL_S)
            continue
        for rollout in await store.wait_for_rollouts(rollout_ids=list(running), timeout=POLL_S):
            spans = await store.query_spans(rollout.rollout_id, "latest")
            triplets = adapter.adapt(spans)
            finish(running.pop(rollout.rollout_id), rollout.status, triplets, agl.find_final_reward(spans))


def finish(order_id: str, status: str, triplets: list[Any], reward: float | None) -> None:
    """Tells the other process of a rollout that has ended."""
    calls = [
        {
            "prompt_ids": list(triplet.prompt["token_ids"]),
            "response_ids": list(triplet.response["token_ids"]),
            "logprobs": [row["logprob"] for row in triplet.response.get("logprobs") or ()],
        }
        for triplet in triplets
    ]
    say("finished", id=order_id, status=status, calls=calls, reward=reward, told=told.pop(order_id, {}))


def main() -> None:
    """Runs the trainer of 0.3, whose algorithm only keeps the books."""
    threading.Thread(target=read, name="read", daemon=True).start()
    trainer = agl.Trainer(
        algorithm=keep_books,
        n_runners=config["workers"],
        strategy=agl.SharedMemoryExecutionStrategy(n_runners=config["workers"], main_thread="algorithm"),
        tracer=NullTracer(),
        adapter=agl.TracerTraceToTriplet(),
        store=agl.InMemoryLightningStore(),
        runner={"type": "agentlightning.LitAgentRunner", "poll_interval": POLL_S, "interval_jitter": 0.005},
    )
    trainer.fit(Asking())


if __name__ == "__main__":
    main()
