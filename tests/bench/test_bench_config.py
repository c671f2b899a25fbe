"""Bench files: what each kind refuses, what a set of cards stands for, and that placeholders stay where they belong."""

from __future__ import annotations

from pathlib import Path

import own_bench
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melete.bench.folder import Bench
from melete.bench.harness_profile import PLACEHOLDERS, inside, render
from melete.errors import ConfigError, UnknownNameError
from melete.settings import Settings

GOOD_STATUS = 'status: {state: tried, version: "1", date: "2026-11-20"}\n'
BAD = {
    "harness_profiles_worker": {
        "unknown placeholder": (
            'description: x\nenvironment: {A: "{bse_url}"}\n' + GOOD_STATUS,
            "environment.A names {bse_url}",
        ),
        "key on a command line": (
            'description: x\nmode: command\ncommand: [a, "{key}"]\n' + GOOD_STATUS,
            "a command line can be read by others",
        ),
        "prompt in the environment": (
            'description: x\nenvironment: {A: "{prompt}"}\n' + GOOD_STATUS,
            "environment.A names {prompt}",
        ),
        "file outside": (
            "description: x\nfiles: {../a: {text: x}}\n" + GOOD_STATUS,
            "has to be a path inside the folder",
        ),
        "file with text and source": (
            "description: x\nfiles: {a: {text: x, source: y}}\n" + GOOD_STATUS,
            "either text or source",
        ),
        "mode without command": ("description: x\nmode: command\n" + GOOD_STATUS, "needs a command"),
        "bad variable name": (
            "description: x\nenvironment: {A-B: x}\n" + GOOD_STATUS,
            "should match pattern",
        ),
        "tried without version": ("description: x\nstatus: {state: tried}\n", "names version and date"),
        "untried without reason": ("description: x\nstatus: {state: untried}\n", "gives the reason"),
    },
    "task_cards_say": {
        "nothing asked": ("description: x\n", "a prompt is needed"),
        "file outside": ("prompt: x\nfiles: {/etc/passwd: x}\n", "has to be a path inside the folder"),
        "file of git": ("prompt: x\nfiles: {.git/hooks/post-commit: x}\n", ".git belongs to git"),
        "scenario and prompt": ("prompt: x\nscenario: {name: a}\n", "the scenario brings it"),
        "transport that runs programs": (
            "prompt: x\nrepository: {url: 'ext::sh -c id', commit: abcdef0}\n",
            "a path or an https address",
        ),
        "option as repository": (
            "prompt: x\nrepository: {url: --upload-pack=id, commit: abcdef0}\n",
            "a path or an https address",
        ),
        "branch as commit": ("prompt: x\nrepository: {url: r, commit: main}\n", "should match pattern"),
        "two checkers": ("prompt: x\nchecker: {command: {}, pytest: {}}\n", "at most 1 item"),
    },
    "experiments_both": {
        "baseline elsewhere": (
            "variants: [one]\nbaseline: three\ntask_cards: [say]\n",
            "is none of the variants",
        ),
        "variant twice": ("variants: [one, one]\ntask_cards: [say]\n", "variants names 'one' twice"),
        "content unredacted": (
            "variants: [one]\ntask_cards: [say]\ncontent: {store: true, redact: false}\n",
            "never kept without redaction",
        ),
        "no attempt": ("variants: [one]\ntask_cards: [say]\nattempts: 0\n", "greater than or equal to 1"),
    },
    "variants_one": {
        "parameter that JSON lacks": (
            "harness_profile: worker\nprovider: here\nmodel: small\nparameters: {when: 2026-01-01}\n",
            "parameters.when",
        ),
    },
}
CASES = [(file, what) for file, cases in BAD.items() for what in cases]


@pytest.mark.parametrize(("file", "what"), CASES, ids=[f"{file}: {what}" for file, what in CASES])
def test_read_of_a_bad_bench_file_names_file_line_and_what_is_wrong(
    home: Settings, tmp_path: Path, file: str, what: str
) -> None:
    text, said = BAD[file][what]
    bench = Bench(own_bench.settings_with(home, tmp_path, **{file: text}))
    shelf = {one.folder.name: one for one in bench.shelves}[next(k for k in ("harness_profiles", "task_cards",
             "experiments", "variants") if file.startswith(k))]  # fmt: skip
    name = file.removeprefix(shelf.folder.name + "_")

    with pytest.raises(ConfigError) as caught:
        shelf.read(name)

    assert str(caught.value).startswith(f"{shelf.folder / name}.yaml:")
    assert said in str(caught.value)


def test_cards_of_a_scenario_are_numbered_from_its_start(home: Settings, tmp_path: Path) -> None:
    bench = Bench(own_bench.settings_with(home, tmp_path))

    assert [card.id for card in bench.cards("desk")] == ["desk/10", "desk/11", "desk/12"]
    assert bench.card("desk/11").task == {"scenario": "customer_support", "split": "held_out", "number": 11}


def test_card_of_a_number_outside_its_set_is_unknown(home: Settings, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="desk/3"):
        Bench(own_bench.settings_with(home, tmp_path)).card("desk/3")


def test_card_of_a_whole_set_is_refused_with_its_range(home: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="desk/10 to desk/12"):
        Bench(own_bench.settings_with(home, tmp_path)).card("desk")


def test_document_of_a_card_with_a_folder_changes_with_its_files(home: Settings, tmp_path: Path) -> None:
    settings = own_bench.settings_with(home, tmp_path, task_cards_say="prompt: x\nfolder: data\n")
    data = settings.bench / "task_cards" / "data"
    data.mkdir()
    (data / "a.txt").write_text("1")
    before = Bench(settings).card("say").document

    (data / "a.txt").write_text("2")

    assert Bench(settings).card("say").document != before


@given(st.text(), st.dictionaries(st.sampled_from(sorted(PLACEHOLDERS)), st.text()))
def test_render_never_looks_into_a_value_again(text: str, some: dict[str, str]) -> None:
    values = {**dict.fromkeys(PLACEHOLDERS, ""), **some, "model": "{key}", "key": "secret"}

    assert render("{model}" + text.replace("{", ""), values) == "{key}" + text.replace("{", "")


@pytest.mark.parametrize("name", ["/a", "../a", "a/../../b", "", "a\\b", "a\0b"])
def test_inside_of_a_path_that_leads_out_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="has to be a path inside the folder"):
        inside("files", name)
