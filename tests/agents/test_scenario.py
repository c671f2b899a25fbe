"""Scenarios are found by file, ours and the user's, and their rewards sum to the value at the end."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melete.actions.action import Message, ToolAction
from melete.agents import conformance, scenario
from melete.agents.scenario import Malformed, Proposal
from melete.errors import ScenarioError, ScenarioNotFoundError

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_unknown_name_lists_the_known_and_the_closest() -> None:
    with pytest.raises(ScenarioNotFoundError, match=r"(?s)Did you mean 'customer_support'.*code_review"):
        scenario.load("customer_suport")


def test_new_scenario_keeps_every_promise(here: Path, call: Call) -> None:
    assert call("agents", "scenarios", "new", "my_desk")[0] == 0
    code, out, _ = call("agents", "scenarios", "check", "my_desk")
    assert code == 0, out
    assert f"{len(conformance.CHECKS)} of {len(conformance.CHECKS)} checks hold" in out


def test_scenario_in_the_home_folder_is_found(here: Path, call: Call) -> None:
    call("agents", "scenarios", "new", "home_desk", "--dir", str(here / "home" / "scenarios"))
    assert scenario.load("home_desk").name == "home_desk"


def test_new_scenario_does_not_take_a_name_that_exists(here: Path, call: Call) -> None:
    code, _, err = call("agents", "scenarios", "new", "customer_support")
    assert code == 2
    assert "exists already" in err


def test_new_scenario_refuses_a_name_that_is_a_path(here: Path, call: Call) -> None:
    assert call("agents", "scenarios", "new", "../desk")[0] == 2


def test_file_without_a_scenario_is_an_error(here: Path) -> None:
    (here / "scenarios").mkdir()
    (here / "scenarios" / "empty_desk.py").write_text("SCENARIO = 3\n", encoding="utf-8")
    with pytest.raises(ScenarioError, match=r"empty_desk\.py exports no scenario"):
        scenario.load("empty_desk")


def test_list_goes_on_where_one_file_is_wrong(here: Path, call: Call) -> None:
    (here / "scenarios").mkdir()
    (here / "scenarios" / "wrong_desk.py").write_text("SCENARIO = 3\n", encoding="utf-8")
    code, out, _ = call("agents", "scenarios", "list")
    assert code == 0
    assert "wrong_desk.py exports no scenario" in out
    assert "customer_support" in out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def (:", "SyntaxError: invalid syntax"),
        ("import no_such_library", "No module named 'no_such_library'"),
        ("raise KeyError('lost')", "KeyError: 'lost'"),
        (
            "from melete.agents.scenario import Scenario\n\n\nclass SCENARIO(Scenario):\n    name = 'odd_desk'\n",
            "abstract method",
        ),
        (
            "from melete.actions.tools import Tool\n\nTool('t', '', {'type': 'strange'}, print)\n",
            "The tool t",
        ),
    ],
)
def test_file_that_cannot_be_loaded_is_one_message_and_a_row_of_the_list(
    text: str, said: str, here: Path, call: Call
) -> None:
    (here / "scenarios").mkdir()
    (here / "scenarios" / "odd_desk.py").write_text(text, encoding="utf-8")
    code, _, err = call("agents", "scenarios", "show", "odd_desk")
    assert code == ScenarioError.exit_code
    assert said in err
    assert "Traceback" not in err
    code, out, _ = call("agents", "scenarios", "list")
    assert code == 0
    (row,) = (line for line in out.splitlines() if line.startswith("odd_desk"))
    assert " no " in row


def test_list_says_in_one_line_that_data_are_not_here(here: Path, call: Call) -> None:
    code, out, _ = call("agents", "scenarios", "list")
    assert code == 0
    (star,) = (line for line in out.splitlines() if line.startswith("star "))
    assert star.endswith("is known but not on this machine.")
    assert all(line.split()[0] in {"name", *scenario.names()} for line in out.splitlines() if line.strip())


def test_show_has_tools_guard_requests_and_the_expert(call: Call) -> None:
    code, out, _ = call("agents", "scenarios", "show", "customer_support")
    assert code == 0
    for part in ("refund_order(order: integer", "precondition: ", "A request of unseen", "verify_identity({"):
        assert part in out


def test_conformance_finds_an_expert_that_fails(here: Path, call: Call) -> None:
    call("agents", "scenarios", "new", "bad_desk")
    path = here / "scenarios" / "bad_desk.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"It is extended by 14 days."', '"No."'), encoding="utf-8")
    code, out, _ = call("agents", "scenarios", "check", "bad_desk", "--tasks", "6")
    assert code == 11
    assert "the expert does not succeed; missed: answered" in out


NAMES = scenario.load("customer_support").toolset.names
ACTIONS = st.one_of(
    st.builds(
        Message,
        st.sampled_from(["Which order number?", "What is your email?", "Sorry, no.", "Done.", "Shall I?"]),
    ),
    st.builds(Malformed, st.text(max_size=20)),
    st.builds(
        ToolAction,
        st.sampled_from([*NAMES, "nothing"]),
        st.fixed_dictionaries(
            {}, optional={"order": st.integers(1000, 9999), "amount": st.integers(-5, 900)}
        ),
    ),
)


@settings(max_examples=60, deadline=None)
@given(index=st.integers(0, 50), actions=st.lists(ACTIONS, min_size=1, max_size=14))
def test_rewards_sum_to_the_value_of_the_last_state_and_stay_in_range(
    index: int, actions: list[Proposal]
) -> None:
    loaded = scenario.load("customer_support")
    environment = loaded.create_environment(loaded.tasks("train", 1, start=index)[0])
    environment.reset()
    total = 0.0
    for action in actions:
        _, reward, terminated, truncated, _ = environment.step(action)
        total += reward
        assert -1 <= reward <= 1
        if terminated or truncated:
            break
    assert total == pytest.approx(loaded.value(environment.state()))
    assert -1 <= total <= 1


def test_example_of_the_documentation_runs() -> None:
    page = Path(__file__).parents[2] / "docs" / "scenarios" / "README.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    names: dict[str, object] = {}
    exec(compile(code, str(page), "exec"), names)
    assert "Outcome" in repr(names["environment"].outcome)  # type: ignore[attr-defined]
