"""The guard: judges every proposed action before it is executed, with reasons that the policy can read.

A guard is a YAML file with a name, a version and rules; a rule type is a file in `rules/`. It is code, not a prompt: it
is read once, before the episode, nothing that a model writes reaches it, and a loaded guard has no way to change.
**What no allow-list names is refused**; a guard without rules refuses everything but messages.

    guard = Guard.load("guards/support.yaml")
    session = guard.start(facts={"customer_id": "C-7"})     # one per episode
    judgement = session.judge(action)
    if judgement.verdict in (Verdict.ALLOW, Verdict.CLAMP):
        result = toolset.call(judgement.action, on=world)
        session.record(judgement.action, result.ok, result.value)

Every rule that has something to say is heard and all reasons are kept; the most severe verdict wins: abort, refuse,
ask, clamp, allow. Rules that may clamp come first, and the others judge the clamped action. Judge, execute and record
one action before the next is judged: preconditions and sequences look at what was recorded.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melete import find
from melete.actions.action import Action
from melete.actions.rule import Finding, Rule, Verdict, key_of, name_of, subject_of
from melete.errors import ConfigError, RunStateError

__all__ = ["Guard", "GuardSession", "Judgement", "Verdict"]

RULES, GUARDS = "melete.actions.rules", "melete.actions.guards"
KEYS = ("name", "version", "description", "rules")
SEVERITY = {verdict: i for i, verdict in enumerate(Verdict)}
KEPT_SUBJECTS = 1_000
AnyRule = Rule[Any, Any]


@dataclass(frozen=True)
class Judgement:
    """What the guard says about an action.

    Attributes:
        verdict: `allow` and `clamp`: `action` may be executed now; `ask`: a person has to confirm it first.
        action: the action as it may be executed, clamped if need be; the proposed one where it is refused.
        reasons: sentences for the policy; empty where the action is simply allowed.
        rule: type of the rule that decided; `default` where no allow-list names the action, empty for `allow`.
    """

    verdict: Verdict
    action: Action
    reasons: tuple[str, ...] = ()
    rule: str = ""


class Guard:
    """Rules, fixed once they are loaded; safe to share between episodes and threads."""

    __slots__ = ("_allowed", "_kinds", "_rules", "_seen", "_values", "name", "version")

    def __init__(
        self, name: str, version: str, rules: list[tuple[str, AnyRule]], values: dict[str, Any]
    ) -> None:
        ordered = sorted(rules, key=lambda one: not one[1].clamps)
        self.name, self.version = name, version
        self._kinds = tuple(kind for kind, _ in ordered)
        self._rules = tuple(rule for _, rule in ordered)
        self._values = values
        self._seen: dict[str, tuple[bool, tuple[int, ...]]] = {}
        names = [name for _, rule in ordered for name in rule.options.subjects or () if rule.allows(name)]
        self._allowed = ", ".join(names[:24]) or "nothing"

    @classmethod
    def load(cls, path_or_name: str | Path) -> Guard:
        """Loads a guard file by its path, or one of those in `actions/guards` by its name.

        Raises:
            ConfigError: the file cannot be read, or a key, type or value in it is wrong; names file and key.
            UnknownNameError: no guard has that name.
        """
        path = Path(path_or_name)
        if path.suffix not in (".yaml", ".yml"):
            path = find.path(GUARDS, str(path_or_name), "guard")
        return cls.from_dict(_read(path), str(path_or_name))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "guard") -> Guard:
        """Builds a guard from the content of a guard file.

        Args:
            values: `{name, version, rules: [{type: {options}}]}`.
            source: name of the file in error messages.

        Raises:
            ConfigError: a key, type or value is wrong.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"{source}: a guard file is a mapping.", allowed=f"Known keys: {', '.join(KEYS)}."
            )
        for key in values:
            if key not in KEYS:
                raise ConfigError(
                    f"{source}: {key}: unknown key.{_closest(str(key), KEYS)}",
                    allowed=f"Known: {', '.join(KEYS)}.",
                )
        name, version, entries = values.get("name"), values.get("version"), values.get("rules")
        if (
            not isinstance(name, str)
            or not isinstance(version, (str, int, float))
            or isinstance(version, bool)
        ):
            raise ConfigError(
                f"{source}: a guard needs a 'name' and a 'version'; found {name!r} and {version!r}."
            )
        if not isinstance(entries, list):
            raise ConfigError(
                f"{source}: rules: found {type(entries).__name__}.",
                allowed="Allowed: a list of {type: {options}}.",
            )
        rules = [_rule(entry, f"{source}: rules[{i}]") for i, entry in enumerate(entries)]
        return cls(name, str(version), rules, copy.deepcopy(dict(values)))

    def to_dict(self) -> dict[str, Any]:
        """The content of the guard file, as it was loaded; a copy."""
        return copy.deepcopy(self._values)

    @property
    def digest(self) -> str:
        """SHA-256 of the content, in hex: two guards with the same digest judge the same."""
        return hashlib.sha256(json.dumps(self._values, sort_keys=True, default=str).encode()).hexdigest()

    def start(self, facts: Mapping[str, Any] | None = None, now_s: float | None = None) -> GuardSession:
        """Begins an episode.

        Args:
            facts: what is known to be true in it and does not come from the policy, such as who is logged in.
            now_s: time in seconds on any clock that runs forward, the monotonic one by default.
        """
        return GuardSession(self, dict(facts or {}), time.monotonic() if now_s is None else now_s)

    def look_up(self, subject: str) -> tuple[bool, tuple[int, ...]]:
        """Whether a subject is allowed at all, and the indices of the rules that see it."""
        found = self._seen.get(subject)
        if found is None:
            allowed = subject == "@message" or any(rule.allows(subject) for rule in self._rules)
            found = allowed, tuple(i for i, rule in enumerate(self._rules) if rule.sees(subject))
            if len(self._seen) < KEPT_SUBJECTS:  # a model may invent names for ever
                self._seen[subject] = found
        return found


class GuardSession:
    """A guard during one episode; made by `Guard.start`."""

    __slots__ = ("_aborted", "_asked", "_guard", "_states", "refusals")

    def __init__(self, guard: Guard, facts: Mapping[str, Any], now_s: float) -> None:
        self._guard = guard
        self._states = [rule.start(facts, now_s) for rule in guard._rules]
        self._aborted: Judgement | None = None
        self._asked: dict[str, Action] = {}
        self.refusals = 0

    def judge(self, action: Action, now_s: float | None = None) -> Judgement:
        """Judges a proposed action. After an abort every further action is aborted."""
        if now_s is None:
            now_s = time.monotonic()
        if self._aborted is not None:
            return Judgement(Verdict.ABORT, action, self._aborted.reasons, self._aborted.rule)
        guard, states = self._guard, self._states
        allowed, seeing = guard.look_up(subject_of(action))
        found: list[tuple[str, Finding]] = []
        if not allowed:
            why = f"{name_of(action)} is refused: it is not among what is allowed ({guard._allowed})."
            found.append(("default", Finding(Verdict.REFUSE, why)))
        clamped = action
        for i in seeing:
            finding = guard._rules[i].judge(states[i], clamped, now_s)
            if finding is not None:
                found.append((guard._kinds[i], finding))
                if finding.action is not None:
                    clamped = finding.action
        judgement = Judgement(Verdict.ALLOW, action) if not found else _most_severe(found, action, clamped)
        if judgement.verdict is Verdict.REFUSE:
            judgement = self._refused(judgement)
        elif judgement.verdict is Verdict.ASK:
            self._asked[key_of(action)] = clamped
            if clamped is not action:
                self._asked[key_of(clamped)] = clamped
        elif judgement.verdict is not Verdict.ABORT:
            for i in seeing:
                guard._rules[i].granted(states[i], clamped, now_s)
        if judgement.verdict is Verdict.ABORT:
            self._aborted = judgement
        return judgement

    def record(self, action: Action, ok: bool, result: Any = None, now_s: float | None = None) -> None:
        """Tells that an action was executed.

        Args:
            action: what was executed: the judgement's action.
            ok: whether it succeeded.
            result: the value that it returned (`ToolResult.value`), in which preconditions look for matching fields.
            now_s: time in seconds, on the clock of `judge`.
        """
        if now_s is None:
            now_s = time.monotonic()
        for i in self._guard.look_up(subject_of(action))[1]:
            self._guard._rules[i].record(self._states[i], action, ok, result, now_s)

    def confirm(self, action: Action) -> None:
        """Tells that a person confirmed an action that was asked for; judged again, it is allowed once.

        Raises:
            RunStateError: the guard did not ask for this action, so nothing was confirmed.
        """
        meant = self._asked.get(key_of(action), action)
        rules = zip(self._guard._rules, self._states, strict=True)
        asked = [rule.confirm(state, meant) for rule, state in rules]
        if not any(asked):
            raise RunStateError(
                f"Nobody was asked to confirm {name_of(action)} with these arguments.",
                next_step="Judge the action first; confirm it if the verdict is ask.",
            )

    def beat(self, now_s: float | None = None) -> None:
        """Tells that whoever watches is still there, for the dead-man rule."""
        now_s = time.monotonic() if now_s is None else now_s
        for rule, state in zip(self._guard._rules, self._states, strict=True):
            rule.beat(state, now_s)

    def _refused(self, judgement: Judgement) -> Judgement:
        """Counts a refusal; the judgement, or an abort if that was one too many."""
        self.refusals += 1
        for kind, rule, state in zip(self._guard._kinds, self._guard._rules, self._states, strict=True):
            finding = rule.refused(state, judgement.action)
            if finding is not None:
                reasons = (*judgement.reasons, finding.reason)
                return Judgement(finding.verdict, judgement.action, reasons, kind)
        return judgement


def _most_severe(found: list[tuple[str, Finding]], action: Action, clamped: Action) -> Judgement:
    kind, worst = max(found, key=lambda one: SEVERITY[one[1].verdict])
    reasons = tuple(finding.reason for _, finding in found)
    executable = clamped if worst.verdict in (Verdict.CLAMP, Verdict.ASK) else action
    return Judgement(worst.verdict, executable, reasons, kind)


def _rule(entry: Any, place: str) -> tuple[str, AnyRule]:
    from pydantic import ValidationError

    from melete.runs.process import first_problem

    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise ConfigError(f"{place}: found {entry!r:.80}.", allowed="Allowed: one rule, {type: {options}}.")
    kind, options = next(iter(entry.items()))
    known = find.names(RULES)
    if kind not in known:
        raise ConfigError(
            f"{place}: {kind}: unknown rule type.{_closest(str(kind), known)}",
            allowed=f"Known: {', '.join(known)}.",
        )
    rule: type[AnyRule] = find.load(RULES, kind, "guard rule").RULE
    try:
        return kind, rule(rule.Options(**(options or {})))
    except ValidationError as error:
        key, text = first_problem(rule.Options, error)
        if key.count(".") > 0:  # the keys that it knows are those of the rule, not of what stands inside it
            text = text.partition(" Known:")[0]
        raise ConfigError(f"{place}.{kind}.{key}: {text}".replace(".config:", ":")) from error
    except TypeError as error:
        raise ConfigError(f"{place}.{kind}: the options are no mapping with text as keys.") from error


def _read(path: Path) -> Any:
    import yaml

    class Strict(yaml.SafeLoader):
        """Refuses a key that stands twice, of which YAML would silently drop one."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            twice = next((key for key in keys if keys.count(key) > 1), None)
            if twice is not None:
                raise ConfigError(f"{path}:{node.start_mark.line + 1}: the key {twice} stands twice.")
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(path.read_text(encoding="utf-8"), Strict)
    except OSError as error:
        raise ConfigError(f"The guard file {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no YAML: {str(error)[:300]}") from error


def _closest(name: str, known: list[str] | tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""
