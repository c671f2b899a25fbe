"""Commands made from process files: flags from fields, help, dry run, messages."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from melete.jobs.execute import read_config
from melete.runs import folder
from melete.settings import Settings

Call = Callable[..., tuple[int, str, str]]


def config_of_last_run(home: Settings) -> dict[str, object]:
    return read_config(home.runs / folder.ids(home.runs)[-1])


def test_flags_become_config_values(home: Settings, call: Call) -> None:
    code, out, err = call(
        *[
            "trial",
            "count",
            "--steps",
            "2",
            "--rate",
            "1e-1",
            "--shape",
            "steep",
            "--words",
            "a",
            "--words",
            "b",
            "--loud",
            "--note",
            "hi",
        ]
    )
    assert code == 0
    assert out.split() == ["a", "b", "step", "1", "step", "2"]
    assert "succeeded" in err
    config = config_of_last_run(home)
    assert {key: config[key] for key in ("steps", "rate", "shape", "words", "loud", "note")} == {
        "steps": 2,
        "rate": 0.1,
        "shape": "steep",
        "words": ["a", "b"],
        "loud": True,
        "note": "hi",
    }


def test_no_flag_turns_a_switch_off(home: Settings, call: Call) -> None:
    call("trial", "count", "--no-loud")
    assert config_of_last_run(home)["loud"] is False


def test_help_shows_every_field_with_default_and_range(call: Call) -> None:
    code, out, _ = call("trial", "count", "--help")
    assert code == 0
    assert "Counts its steps and logs a falling loss." in out
    for flag in (
        "--steps",
        "--save-every",
        "--loud / --no-loud",
        "[flat|steep]",
        "--dry-run",
        "--limit-batches",
    ):
        assert flag in out
    assert "[default: 5]" in out.replace("\n", " ")


def test_help_of_a_system_lists_its_processes(call: Call) -> None:
    code, out, _ = call("trial", "--help")
    assert code == 0
    assert "count  Counts its steps and logs a falling loss." in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--steps x", "trial.count: steps: input should be a valid integer"),
        ("--steps 0", "trial.count: steps: input should be greater than or equal to 1"),
        ("--shape round", "'round' is not one of 'flat', 'steep'"),
        ("--stps 3", "No such option"),
        ("--limit-batches 0", "0 is not in the range"),
    ],
)
def test_wrong_flag_is_one_message_and_exit_code_2(
    home: Settings, call: Call, args: str, message: str
) -> None:
    code, out, err = call("trial", "count", *args.split())
    assert (code, out) == (2, "")
    assert message in err
    assert not home.home.exists()


def test_error_of_a_run_is_one_message_with_its_exit_code(call: Call) -> None:
    code, _, err = call("trial", "count", "--fail-at", "1")
    assert code == 7
    assert err.startswith("error: The loss became nan at step 1")
    assert "Traceback" not in err


def test_dry_run_marks_given_values_shows_derived_ones_and_writes_nothing(home: Settings, call: Call) -> None:
    code, out, _ = call("trial", "count", "--steps", "7", "--dry-run")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["steps", "7", "given"] in lines
    assert ["rate", "0.5", "default"] in lines
    assert ["total", "3.5", "steps", "times", "rate"] in lines
    assert not home.home.exists()


def test_dry_run_resolves_a_reference_to_its_checkpoint(home: Settings, call: Call) -> None:
    call("trial", "count", "--save-every", "2", "--name", "best")
    code, out, _ = call("trial", "count", "--base", "best", "--dry-run")
    assert code == 0
    assert f"{folder.ids(home.runs)[0]}:5" in out


def test_dry_run_with_a_reference_to_nothing_fails(call: Call) -> None:
    code, _, err = call("trial", "count", "--base", "best", "--dry-run")
    assert code == 2
    assert "There is no run named 'best'" in err


def test_schema_of_a_process_names_its_fields(call: Call) -> None:
    code, out, _ = call("schema", "trial.count")
    assert code == 0
    assert json.loads(out)["properties"]["steps"]["minimum"] == 1


def test_schema_of_job_files_accepts_a_good_one_and_refuses_a_bad_one(call: Call) -> None:
    import jsonschema

    schema = json.loads(call("schema")[1])
    good = {"name": "a", "processes": [{"process": "trial.count", "config": {"steps": 3, "base": "@x"}}]}
    jsonschema.validate(good, schema)
    for config in ({"stps": 3}, {"steps": 0}):
        bad = {"name": "a", "processes": [{"process": "trial.count", "config": config}]}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema)
