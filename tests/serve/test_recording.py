"""Recording: what an agent's model drew is kept behind the key of its episode, token by token; nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from melete.llm.engine import Sampling
from melete.serve import models
from melete.serve.recording import Recorder, turn_seed
from melete.serve.server import Server
from melete.settings import Settings
from serve.conftest import CALCULATOR, echo_model

ASK = [{"role": "user", "content": "what is 2 + 3?"}]
LONG = [{"role": "user", "content": "word " * 200}]


@pytest.fixture(scope="module")
def practice(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Recorder]]:
    """A server with a recorder over the tiny model and the echo model; it asks for a token."""
    settings = Settings.of(tmp_path_factory.mktemp("home"), token="secret")
    served = models.load_all([f"tiny={checkpoint}", "echo"], settings, device="cpu", slots=8)
    served["slow"] = echo_model(interval_s=0.01)
    recorder = Recorder()
    with Server(served, settings, recorder=recorder) as running:
        yield running, recorder


def client_of(server: Server, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


def chat(server: Server, key: str, **options: Any) -> Any:
    with client_of(server, key) as client:
        return client.chat.completions.create(model=options.pop("model", "tiny"), messages=ASK, **options)


def test_recorded_ids_and_logprobs_equal_what_the_engine_draws(practice: tuple[Server, Recorder]) -> None:
    server, recorder = practice
    key = recorder.open("one", seed=5, temperature=0.7, max_tokens=12)
    answer = chat(server, key, temperature=0, seed=1, extra_body={"return_token_ids": True})
    (move,) = recorder.close("one")
    sampling = Sampling(max_tokens=12, temperature=0.7, seed=turn_seed(5, 0), logprobs=0)
    drawn = server.models["tiny"].engine.submit(move.prompt_ids, sampling).result(60)
    assert move.response_ids == drawn.token_ids == answer.choices[0].token_ids
    assert move.logprobs == pytest.approx(drawn.logprobs, abs=1e-4)
    assert move.prompt_ids == answer.prompt_token_ids
    assert move.finish == drawn.finish_reason


def test_streamed_answer_is_recorded_like_a_whole_one(practice: tuple[Server, Recorder]) -> None:
    server, recorder = practice
    whole = recorder.open("whole", seed=9, max_tokens=12)
    streamed = recorder.open("streamed", seed=9, max_tokens=12)
    text = chat(server, whole).choices[0].message.content
    with client_of(server, streamed) as client:
        stream = client.chat.completions.create(model="tiny", messages=ASK, stream=True)
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    (one,), (other,) = recorder.close("whole"), recorder.close("streamed")
    assert (one.prompt_ids, one.response_ids) == (other.prompt_ids, other.response_ids)
    assert "".join(pieces) == text


def test_turns_of_an_episode_draw_with_seeds_of_their_own(practice: tuple[Server, Recorder]) -> None:
    server, recorder = practice
    key = recorder.open("turns", seed=3, max_tokens=16)
    for _ in range(2):
        chat(server, key)
    first, second = recorder.close("turns")
    assert first.prompt_ids == second.prompt_ids
    assert first.response_ids != second.response_ids


def test_answer_of_an_episode_looks_like_any_other(practice: tuple[Server, Recorder]) -> None:
    server, recorder = practice
    key = recorder.open("plain", seed=0, max_tokens=4)
    answer = chat(server, key)
    recorder.close("plain")
    assert answer.choices[0].logprobs is None
    assert not hasattr(answer, "prompt_token_ids")


def test_move_holds_the_turn_that_the_agent_reads(practice: tuple[Server, Recorder]) -> None:
    server, recorder = practice
    key = recorder.open("calls", seed=0, model="echo")
    with client_of(server, key) as client:
        client.chat.completions.create(
            model="gpt-whatever",
            messages=[{"role": "user", "content": 'call calculator {"expression":"1+1"}'}],
            tools=[CALCULATOR],
        )
    (move,) = recorder.close("calls")
    (call,) = move.turn.tool_calls
    assert (call.name, call.arguments) == ("calculator", '{"expression":"1+1"}')


def test_version_of_swapped_weights_is_noted_per_completion(practice: tuple[Server, Recorder]) -> None:
    server, recorder = practice
    key = recorder.open("versions", seed=0, max_tokens=2)
    before = chat(server, key)
    weights = {name: p.detach().clone() for name, p in server.models["tiny"].lm.model.named_parameters()}
    server.swap(weights, "tiny", version=7)
    after = chat(server, key)
    moves = recorder.close("versions")
    assert [move.policy_version for move in moves] == [0, 7]
    assert [before.system_fingerprint, after.system_fingerprint] == ["weights-0", "weights-7"]


def test_closed_key_is_refused_and_not_tried_again(practice: tuple[Server, Recorder]) -> None:
    server, recorder = practice
    key = recorder.open("over", seed=0, max_tokens=2)
    recorder.close("over")
    with pytest.raises(openai.PermissionDeniedError, match="episode is over"):
        chat(server, key)


def test_closing_cancels_what_still_runs_and_keeps_it_out(practice: tuple[Server, Recorder]) -> None:
    server, recorder = practice
    key = recorder.open("running", seed=0)
    with client_of(server, key) as client:
        stream = client.chat.completions.create(model="slow", messages=LONG, stream=True)
        next(stream)
        moves = recorder.close("running")
        with pytest.raises(openai.APIError, match="cut off"):
            list(stream)
    assert moves == []


def test_rollout_key_opens_the_model_and_nothing_else(practice: tuple[Server, Recorder]) -> None:
    server, recorder = practice
    key = recorder.open("narrow", seed=0)
    header = {"Authorization": f"Bearer {key}"}
    assert httpx.get(f"{server.url}/v1/models", headers=header).status_code == 200
    assert httpx.post(f"{server.url}/v1/models/tiny/reload", headers=header, json={}).status_code == 403
    assert httpx.get(f"{server.url}/chat", headers=header).status_code == 403
    recorder.close("narrow")


def test_guessed_rollout_key_is_refused(practice: tuple[Server, Recorder]) -> None:
    server, recorder = practice
    recorder.open("guess", seed=0)
    with pytest.raises(openai.PermissionDeniedError):
        chat(server, "rollout-guess")
    assert recorder.close("guess") == []


def test_other_keys_are_served_and_not_recorded(practice: tuple[Server, Recorder]) -> None:
    server, recorder = practice
    recorder.open("beside", seed=0)
    assert chat(server, "secret", max_tokens=2).choices[0].finish_reason
    assert recorder.close("beside") == []


def test_server_without_recorder_takes_a_rollout_key_for_any_other(server: Server) -> None:
    assert chat(server, "rollout-x", max_tokens=2).choices[0].finish_reason


def test_refused_request_leaves_no_move_and_no_turn(practice: tuple[Server, Recorder]) -> None:
    server, recorder = practice
    key = recorder.open("refused", seed=4, max_tokens=6)
    with pytest.raises(openai.BadRequestError), client_of(server, key) as client:
        client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "word " * 2000}], max_tokens=2
        )
    chat(server, key)
    (move,) = recorder.close("refused")
    sampling = Sampling(max_tokens=6, temperature=1.0, seed=turn_seed(4, 0))
    assert server.models["tiny"].engine.submit(move.prompt_ids, sampling).result(60).token_ids == (
        move.response_ids
    )


def test_conversation_that_goes_on_extends_the_drawn_ids(practice: tuple[Server, Recorder]) -> None:
    server, recorder = practice
    key = recorder.open("goes_on", seed=11, max_tokens=12)
    messages: list[Any] = [*ASK]
    with client_of(server, key) as client:
        for more in ("and 3 + 4?", "thanks"):
            answer = client.chat.completions.create(model="tiny", messages=messages)
            messages += [answer.choices[0].message.model_dump(), {"role": "user", "content": more}]
        client.chat.completions.create(model="tiny", messages=messages)
    one, two, three = recorder.close("goes_on")
    for before, after in ((one, two), (two, three)):
        drawn = before.response_ids if before.finish == "length" else before.response_ids[:-1]
        whole = [*before.prompt_ids, *drawn]
        assert after.prompt_ids[: len(whole)] == whole


def test_call_whose_json_the_client_wrote_anew_still_extends_the_drawn_ids(
    practice: tuple[Server, Recorder],
) -> None:
    server, recorder = practice
    key = recorder.open("rewritten", seed=0, model="echo")
    messages: list[Any] = [{"role": "user", "content": 'call calculator {"expression":"1+1"}'}]
    with client_of(server, key) as client:
        answer = client.chat.completions.create(model="echo", messages=messages, tools=[CALCULATOR])
        call = answer.choices[0].message.tool_calls[0].model_dump()
        call["function"]["arguments"] = '{ "expression": "1+1" }'
        messages += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": "2"},
        ]
        client.chat.completions.create(model="echo", messages=messages, tools=[CALCULATOR])
    one, two = recorder.close("rewritten")
    whole = [*one.prompt_ids, *one.response_ids]
    assert two.prompt_ids[: len(whole)] == whole


def test_conversation_that_the_client_rewrote_is_rendered_anew(practice: tuple[Server, Recorder]) -> None:
    server, recorder = practice
    key = recorder.open("edited", seed=0, model="echo")
    with client_of(server, key) as client:
        for said in ("hello", "other"):
            client.chat.completions.create(
                model="echo",
                messages=[
                    {"role": "user", "content": "hello"},
                    {"role": "assistant", "content": said},
                    {"role": "user", "content": "more"},
                ],
            )
    one, two = recorder.close("edited")
    lm = server.models["echo"].lm
    assert "other" in lm.decode(two.prompt_ids)
    assert one.prompt_ids != two.prompt_ids


def test_strict_tools_do_not_hold_a_recorded_draw_to_their_schema(practice: tuple[Server, Recorder]) -> None:
    server, recorder = practice
    strict = {"type": "function", "function": {**CALCULATOR["function"], "strict": True}}  # type: ignore[dict-item]
    key = recorder.open("strict", seed=2, max_tokens=12)
    chat(server, key, tools=[strict], tool_choice="required")
    (move,) = recorder.close("strict")
    sampling = Sampling(max_tokens=12, seed=turn_seed(2, 0))
    assert server.models["tiny"].engine.submit(move.prompt_ids, sampling).result(60).token_ids == (
        move.response_ids
    )


def test_limit_of_tokens_that_the_agent_asks_for_gives_way_to_that_of_practice(
    practice: tuple[Server, Recorder],
) -> None:
    server, recorder = practice
    key = recorder.open("limit", seed=0, max_tokens=5)
    answer = chat(server, key, max_tokens=4096)
    recorder.close("limit")
    assert 1 <= answer.usage.completion_tokens <= 5


def test_full_context_refuses_the_turn_and_is_told_to_the_recorder(practice: tuple[Server, Recorder]) -> None:
    server, recorder = practice
    key = recorder.open("full", seed=0, max_tokens=5)
    assert not recorder.full("full")
    with (
        pytest.raises(openai.BadRequestError, match="maximum context length"),
        client_of(server, key) as client,
    ):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "word " * 2000}])
    assert recorder.full("full")
    assert recorder.close("full") == []


def test_plain_completion_is_recorded_too(practice: tuple[Server, Recorder]) -> None:
    server, recorder = practice
    key = recorder.open("plain_text", seed=0, max_tokens=5)
    with client_of(server, key) as client:
        text = client.completions.create(model="tiny", prompt="two and", max_tokens=3).choices[0].text
    (move,) = recorder.close("plain_text")
    assert 1 <= len(move.response_ids) <= 5
    assert move.turn.content == text
