"""`melete bench init` and `validate`: an example that is right, and every wrong reference told at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import own_bench
import pytest

from melete.bench import init
from melete.bench.folder import Bench, check
from melete.settings import Settings

Call = Callable[..., tuple[int, str, str]]


def found(settings: Settings, **environ: str) -> list[str]:
    findings = check(Bench(settings), environ)
    return [str(problem).removeprefix(f"{settings.bench}/") for problem in findings.problems]


def test_check_of_a_good_folder_finds_nothing(home: Settings, tmp_path: Path) -> None:
    assert found(own_bench.settings_with(home, tmp_path)) == []


def test_check_of_the_files_that_ship_finds_nothing(home: Settings) -> None:
    assert found(home) == []


def test_check_of_many_wrong_references_tells_all_of_them_with_line_and_key(
    home: Settings, tmp_path: Path
) -> None:
    settings = own_bench.settings_with(
        home,
        tmp_path,
        variants_one="harness_profile: wroker\nprovider: here\nmodel: smal\n",
        variants_two="harness_profile: worker\nprovider: nowhere\nmodel: small\n",
        task_cards_say="prompt: x\nfolder: none\nchecker:\n  expected_text: {txt: x}\n",
        task_cards_open="prompt: x\nchecker: {guess: {}}\n",
        task_cards_desk="scenario: {name: custmer_support}\n",
        experiments_both="variants: [one, three]\ntask_cards: [say, desk/1, none]\n",
        harness_profiles_worker=(
            "description: x\nfiles:\n  a.toml: {source: a.toml}\nstatus: {state: untried, reason: new}\n"
        ),
    )

    told = found(settings)

    for line in (
        "harness_profiles/worker.yaml:3: files.a.toml.source: no file 'a.toml' is beside the profile.",
        "variants/one.yaml:1: harness_profile: there is no harness profile named 'wroker'.",
        "variants/one.yaml:3: model: there is no model of here named 'smal'. Did you mean 'small'?",
        "variants/two.yaml:2: provider: there is no provider named 'nowhere'.",
        "task_cards/say.yaml:2: folder: no folder 'none' is beside the card.",
        "task_cards/say.yaml:4: checker.expected_text.txt: unknown key. Did you mean 'text'?",
        "task_cards/open.yaml:2: checker.guess: there is no checker named 'guess'.",
        "task_cards/desk.yaml:1: scenario.name: there is no scenario named 'custmer_support'.",
        "experiments/both.yaml:1: variants.1: there is no variant named 'three'.",
        "experiments/both.yaml:2: task_cards.2: there is no task card named 'none'.",
    ):
        assert any(each.startswith(line) for each in told), (line, told)


def test_check_of_a_provider_without_its_variable_warns_and_names_it(home: Settings, tmp_path: Path) -> None:
    text = "kind: openai\napi_key: ${THE_KEY}\nmodels: {small: {}, large: {}}\n"
    settings = own_bench.settings_with(home, tmp_path, providers_here=text)

    assert [str(each).partition("here.yaml:")[2] for each in check(Bench(settings), {}).warnings] == [
        "2: api_key: the environment variable THE_KEY is not set."
    ]
    assert check(Bench(settings), {"THE_KEY": "x"}).warnings == []


def test_validate_of_a_folder_with_problems_exits_with_2_and_tells_them_on_stderr(
    home: Settings, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_bench.write(
        tmp_path / "bench", variants_one="harness_profile: worker\nprovider: here\nmodle: small\n"
    )
    monkeypatch.setenv("MELETE_BENCH", str(tmp_path / "bench"))

    code, out, err = call("bench", "validate")

    assert code == 2
    assert "variants/one.yaml:3: modle: unknown key. Did you mean 'model'?" in err
    assert "8 files" in out


def test_validate_of_an_empty_folder_says_what_to_do(home: Settings, call: Call) -> None:
    code, out, _ = call("bench", "validate")

    assert code == 0
    assert "melete bench init" in out


def test_init_writes_a_folder_that_is_valid_and_whole(home: Settings, tmp_path: Path) -> None:
    import dataclasses

    written, kept = init.write(home, tmp_path / "mine")

    findings = check(Bench(dataclasses.replace(home, bench_folder=tmp_path / "mine")), {})
    assert kept == []
    assert findings.problems == findings.warnings == []
    assert findings.counts == {
        "provider": 1, "harness profile": 1, "variant": 2, "task card": 2, "experiment": 1
    }  # fmt: skip
    assert len(written) == 8


def test_init_of_a_folder_with_files_keeps_them(home: Settings, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "variants" / "careful.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("# mine\n")

    _, kept = init.write(home, tmp_path / "mine")

    assert kept == [mine]
    assert mine.read_text() == "# mine\n"
