"""Sessions through the real gateway: a snippet that a shell evaluates, a harness that is run, and a key that dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import own_bench
import pytest

from gateway_at_hand import AtHand, at_hand
from melete.gateway.echo.script import Script

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("gateway")]

PROVIDER = "kind: openai\nbase_url: http://127.0.0.1:9/v1\nmodels: {echo: {}, echo-chat: {}}\n"
FILES = {
    "providers_here": PROVIDER,
    "variants_one": "harness_profile: ask\nprovider: here\nmodel: echo\n",
    "variants_two": "harness_profile: ask\nprovider: here\nmodel: echo-chat\n",
    "task_cards_say": "prompt: Say forty-two.\nchecker: {expected_text: {text: forty-two}}\n",
    "experiments_both": "variants: [one]\ntask_cards: [say]\nlimits: {max_requests: 1}\n",
}
ASK = (
    'curl -s -o "$1" -w "%{http_code}" "$OPENAI_BASE_URL/chat/completions" -H "Authorization: Bearer $OPENAI_API_KEY" '
    "-H 'Content-Type: application/json' "
    '-d "{\\"model\\": \\"$OPENAI_MODEL\\", \\"messages\\": [{\\"role\\": \\"user\\", \\"content\\": \\"hi\\"}]}"'
)


@pytest.fixture
def hand(tmp_path: Path) -> AtHand:
    hand = at_hand()
    hand.upstream.play(Script())
    own_bench.write(tmp_path / "bench", **FILES)
    return hand


def environ(hand: AtHand, tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MELETE_")}
    return {**kept, "MELETE_HOME": str(hand.settings.home), "MELETE_BENCH": str(tmp_path / "bench")}


def melete(hand: AtHand, tmp_path: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "melete", "bench", *args],
        capture_output=True, text=True, cwd=tmp_path, env=environ(hand, tmp_path), timeout=120,
    )  # fmt: skip


def test_snippet_evaluated_by_a_shell_lets_it_in_until_the_session_is_finalized(
    hand: AtHand, tmp_path: Path
) -> None:
    command = f"{sys.executable} -m melete bench session"
    script = (
        f'eval "$({command} start --variant one --task say)"\n'
        f"ask() {{ {ASK}; echo; }}\n"
        "ask first.json\n"
        f"{command} finalize --solved\n"
        "ask second.json\n"
        'echo "$MELETE_SESSION"\n'
    )

    done = subprocess.run(
        ["sh", "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environ(hand, tmp_path),
        timeout=120,
    )

    first, second, id = done.stdout.split()
    assert (first, second) == ("200", "401"), done.stderr
    assert json.loads((tmp_path / "first.json").read_text())["choices"][0]["message"]["content"] == "hi"
    assert "is finalised: solved; 1 request," in done.stderr
    assert len([row for row in hand.requests(id) if row["status"] == "ok"]) == 1


def test_exec_of_the_shipped_harness_is_judged_and_its_requests_are_there(
    hand: AtHand, tmp_path: Path
) -> None:
    done = melete(hand, tmp_path, "exec", "--variant", "one", "--task", "say")

    assert (done.returncode, done.stdout) == (0, "Say forty-two.\n"), done.stderr
    assert "is finalised: solved; 1 request," in done.stderr
    shown = json.loads(melete(hand, tmp_path, "session", "show", done.stderr.split()[1], "--json").stdout)
    assert shown["session"]["metadata"]["exit_code"] == 0
    assert shown["traffic"]["tokens_in"] > 0


def test_start_with_a_model_that_the_gateway_does_not_offer_says_what_it_offers(
    hand: AtHand, tmp_path: Path
) -> None:
    own_bench.write(tmp_path / "bench", **FILES)
    (tmp_path / "bench" / "providers" / "here.yaml").write_text(PROVIDER.replace("echo:", "other:"))
    (tmp_path / "bench" / "variants" / "one.yaml").write_text(FILES["variants_one"].replace("echo", "other"))

    done = melete(hand, tmp_path, "session", "start", "--variant", "one", "--task", "say")

    assert (done.returncode, done.stdout) == (8, "")
    assert "does not offer other" in done.stderr
    assert "echo-chat" in done.stderr


def test_session_s_key_asks_for_no_other_model_and_no_more_often_than_allowed(
    hand: AtHand, tmp_path: Path
) -> None:
    done = melete(hand, tmp_path, "session", "start", "--variant", "one", "--task", "say", "--experiment", "both",
                  "--format", "json")  # fmt: skip
    given = json.loads(done.stdout)["environment"]
    headers = {"Authorization": f"Bearer {given['OPENAI_API_KEY']}"}

    codes = [
        httpx.post(
            f"{given['OPENAI_BASE_URL']}/chat/completions",
            headers=headers,
            json={"model": model, "messages": [{"role": "user", "content": "hi"}]},
            timeout=60,
        ).status_code
        for model in ("echo-chat", "echo", "echo")
    ]

    melete(hand, tmp_path, "session", "abort", given["MELETE_SESSION"])
    assert codes[:2] == [403, 200]
    assert codes[2] in (402, 403, 422, 429)
