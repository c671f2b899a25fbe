"""Job files: what is read, and that each wrong thing is named with file, line and key."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melete.errors import JobFileError
from melete.jobs import file as job_file

EXAMPLES = Path(__file__).parents[2] / "examples"
GOOD = """\
name: tiny
processes:
  - process: trial.count
    name: base
    config: {steps: 3}
  - process: trial.count
    config:
      base: "@base"
      words: [a, b]
    limit_batches: 2
"""


def read(tmp_path: Path, text: str, name: str = "job.yaml") -> job_file.JobFile:
    path = tmp_path / name
    path.write_text(text)
    return job_file.read(path)


def test_read_of_a_good_file_gives_its_steps(tmp_path: Path) -> None:
    job = read(tmp_path, GOOD)
    assert [step.label for step in job.processes] == ["base", "count"]
    assert job.processes[1].config == {"base": "@base", "words": ["a", "b"]}
    assert job.processes[1].limit_batches == 2


@pytest.mark.parametrize("indent", [2, "\t", None])
def test_read_of_json_gives_the_same(tmp_path: Path, indent: int | str | None) -> None:
    from_yaml = read(tmp_path, GOOD)
    text = json.dumps(from_yaml.model_dump(exclude_unset=True), indent=indent)
    assert read(tmp_path, text, "job.json") == from_yaml


def test_substitute_puts_runs_in_place_of_step_names(tmp_path: Path) -> None:
    config = {"base": "@one", "mix": ["x", "@one"], "deep": {"a": "@two"}, "steps": 3}
    assert job_file.substitute(config, {"one": "run-1", "two": "run-2"}) == {
        "base": "run-1",
        "mix": ["x", "run-1"],
        "deep": {"a": "run-2"},
        "steps": 3,
    }


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, 1)


BAD = {
    "unknown key": (changed("name: tiny", "nme: tiny"), 1, "nme: unknown key. Did you mean 'name'?"),
    "unknown key of a process": (changed("    name: base", "    nam: base"), 4, "nam: unknown key."),
    "unknown config key": (changed("steps: 3", "stps: 3"), 5, "stps: unknown key. Did you mean 'steps'?"),
    "wrong type": (changed("steps: 3", "steps: many"), 5, "steps: input should be a valid integer"),
    "boolean for a number": (
        changed("steps: 3", "steps: yes"),
        5,
        "steps: input should be a number; found true",
    ),
    "outside its range": (
        changed("steps: 3", "steps: 0"),
        5,
        "steps: input should be greater than or equal to 1",
    ),
    "outside its choices": (
        changed("steps: 3", "shape: round"),
        5,
        "shape: input should be 'flat' or 'steep'",
    ),
    "wrong item of a list": (changed("[a, b]", "[a, 7]"), 9, "words.1: input should be a valid string"),
    "wrong limit": (
        changed("limit_batches: 2", "limit_batches: 0"),
        10,
        "limit_batches: input should be greater",
    ),
    "unknown process": (changed("trial.count", "trial.cuont"), 3, "Did you mean 'trial.count'?"),
    "config is a list": (changed("{steps: 3}", "[1]"), 5, "config: input should be a valid dictionary"),
    "key stands twice": (
        changed("{steps: 3}", "{steps: 3, steps: 4}"),
        5,
        "steps: stands twice, first in line 5",
    ),
    "step name twice": (
        changed("    config:\n", "    name: base\n    config:\n"),
        7,
        "'base' is the name of an earlier",
    ),
    "unknown step": (changed("@base", "@bsae"), 8, "base: no earlier process is named 'bsae'"),
    "step refers to itself": (
        changed("{steps: 3}", '{base: "@base"}'),
        5,
        "base: no earlier process is named 'base'",
    ),
    "no processes": ("name: tiny\nprocesses: []\n", 2, "processes: list should have at least 1 item"),
    "processes missing": ("name: tiny\n", 1, "processes: field required"),
    "process missing": ("name: a\nprocesses:\n  - name: x\n", 3, "process: field required"),
    "name with a slash": (changed("name: tiny", "name: a/b"), 1, "name: string should match pattern"),
    "not a mapping": ("- a\n- b\n", 1, "config: input should be"),
    "key that is a list": ("? [a]\n: b\n", 1, "a key has to be a word"),
    "key that is a number": (changed("{steps: 3}", "{3: steps}"), 5, "input should be a valid string"),
    "alias inside its anchor": ("name: &a [*a]\n", 1, "an alias stands inside its anchor"),
    "tag that builds objects": ("name: !!python/object/apply:os.system [ls]\n", 1, "not YAML"),
    "empty": ("", 1, "the job file is empty"),
    "not YAML": ("name: a\nprocesses: [\n", 3, "not YAML"),
}


@pytest.mark.parametrize("what", BAD)
def test_read_of_a_bad_file_names_file_line_and_key(tmp_path: Path, what: str) -> None:
    text, line, message = BAD[what]
    with pytest.raises(JobFileError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'job.yaml'}:{line}: ")
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


@given(st.text(alphabet=st.sampled_from("name: processes-[]{}&*!?'\"|>\n\t #,@12.\x00é"), max_size=60))
@settings(deadline=None, max_examples=200)
def test_read_of_any_text_is_a_job_or_a_job_file_error(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.yaml"
        path.write_text(text, encoding="utf-8")
        wrong = ""
        try:
            job_file.read(path)
        except JobFileError as error:
            wrong = str(error)
        assert not wrong or wrong.startswith(str(path))


def test_read_of_a_thousandfold_nested_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JobFileError, match="nested too deeply"):
        read(tmp_path, "[" * 5000 + "]" * 5000)


def test_read_of_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JobFileError, match="cannot be read"):
        job_file.read(tmp_path / "none.yaml")


def test_read_of_bytes_that_are_not_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(JobFileError, match="cannot be read"):
        job_file.read(tmp_path / "job.yaml")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_example_job_is_a_good_file(path: Path) -> None:
    assert job_file.read(path).processes
