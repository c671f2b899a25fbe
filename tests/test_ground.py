"""The first rows of the house: errors, settings, find."""

from __future__ import annotations

from pathlib import Path

import pytest

from melete import errors, find, settings
from melete.errors import ConfigError, MeleteError, MissingExtraError, UnknownNameError


def all_errors(root: type[MeleteError] = MeleteError) -> list[type[MeleteError]]:
    ours = [child for child in root.__subclasses__() if child.__module__ == errors.__name__]
    return [root, *(found for child in ours for found in all_errors(child))]


def test_tree_at_the_top_of_the_file_draws_every_error_with_its_exit_code() -> None:
    drawn = {
        words[0]: int(words[1])
        for line in (errors.__doc__ or "").splitlines()
        if len(words := line.strip("│├└─ ").split()) > 1 and words[0] in vars(errors) and words[1].isdecimal()
    }
    assert drawn == {error.__name__: error.exit_code for error in all_errors()}


def test_message_joins_what_was_found_what_is_allowed_and_the_next_step() -> None:
    error = MeleteError("Found.", allowed="Allowed.", next_step="Next.")
    assert str(error) == "Found.\nAllowed.\nNext."
    assert str(MeleteError("Found.")) == "Found."


def test_unknown_name_of_something_far_off_has_no_suggestion() -> None:
    assert "Did you mean" not in str(UnknownNameError("task", "zzz", ["mmlu", "arc"]))


def test_settings_read_the_environment_before_the_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# mine\nexport MELETE_HOME='from_file'\nOTHER=1\nMELETE_TOKEN=t\n")
    assert settings.load({}, tmp_path).home == tmp_path / "from_file"
    loaded = settings.load({"MELETE_HOME": "/elsewhere"}, tmp_path)
    assert (loaded.home, loaded.token) == (Path("/elsewhere"), "t")


def test_home_is_the_nearest_melete_folder_upwards(tmp_path: Path) -> None:
    (tmp_path / ".melete").mkdir()
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    assert settings.load({}, inside).home == tmp_path / ".melete"


@pytest.mark.parametrize(
    ("text", "message"), [("MELETE_HOM=x\n", "MELETE_HOM"), ("nonsense\n", ":1: 'nonsense'")]
)
def test_env_file_with_a_wrong_line_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / ".env").write_text(text)
    with pytest.raises(ConfigError, match=message):
        settings.load({}, tmp_path)


def test_settings_take_the_bench_folder_named_else_one_here_else_the_home(tmp_path: Path) -> None:
    environ = {"MELETE_HOME": str(tmp_path / "home")}
    assert settings.load(environ, tmp_path).bench == tmp_path / "home" / "bench"
    (tmp_path / "bench").mkdir()
    assert settings.load(environ, tmp_path).bench == tmp_path / "bench"
    assert settings.load({**environ, "MELETE_BENCH": "mine"}, tmp_path).bench == tmp_path / "mine"
    assert settings.load({**environ, "MELETE_BENCH": "/mine"}, tmp_path).bench == Path("/mine")


def test_settings_never_show_secrets(tmp_path: Path) -> None:
    loaded = settings.load(
        {"MELETE_TOKEN": "secret", "MELETE_DATABASE": "postgresql://u:secret@h/d"}, tmp_path
    )
    assert "secret" not in repr(loaded)


def test_find_lists_names_without_importing_and_leaves_private_files_out(tmp_path: Path) -> None:
    assert "runs" in find.names("melete.cli")
    assert not [name for name in find.names("melete.cli") if name.startswith("_")]


def test_find_of_a_file_that_needs_a_missing_library_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import melete

    package = tmp_path / "lacking"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "needs.py").write_text('"""Needs what is not there."""\nimport llguidance_is_not_here\n')
    monkeypatch.setattr(melete, "__path__", [*melete.__path__, str(tmp_path)])
    monkeypatch.setitem(find.EXTRA_OF, "llguidance_is_not_here", "serve")
    with pytest.raises(MissingExtraError, match=r"pip install 'melete\[serve\]'"):
        find.load("melete.lacking", "needs", "thing")
