"""Names that a user writes for a run or a checkpoint, resolved to a folder.

A reference is a run id, the unique beginning of one, a run's `--name` or its name in a job (the newest with that name),
`latest`, any of these with `:step` for an older checkpoint, or the path of a checkpoint or run folder. `kinds`
restricts to checkpoints of these kinds, so that `latest` for a chat model never yields a tokenizer.
"""

from __future__ import annotations

from pathlib import Path

from melete.errors import CheckpointError, UnknownNameError
from melete.runs import checkpoints, folder
from melete.settings import Settings


def run(settings: Settings, ref: str) -> Path:
    """Folder of the run that `ref` names.

    Raises:
        UnknownNameError: no run has that id, beginning or name, or several have that beginning.
    """
    if ref == "latest":
        found = folder.ids(settings.runs)
        if found:
            return settings.runs / found[-1]
        raise UnknownNameError("run", ref, (), next_step="Start one, such as: melete llm pretrain")
    known = folder.ids(settings.runs)
    if ref in known:
        return settings.runs / ref
    if (Path(ref) / "run.json").is_file():
        return Path(ref).resolve()
    beginning = [run_id for run_id in known if ref and run_id.startswith(ref)]
    if len(beginning) == 1:
        return settings.runs / beginning[0]
    names = {}
    for path, record in reversed(list(folder.all_runs(settings))):
        names.update({name: path for name in (record.step_name, record.name) if name})
    if ref in names:
        return names[ref]
    if beginning:
        raise UnknownNameError(
            "run", ref, beginning, next_step="More than one run begins so: write more of the id."
        )
    raise UnknownNameError(
        "run", ref, [*known[-8:], *names], next_step="List the runs with: melete runs list"
    )


def checkpoint(settings: Settings, ref: str, kinds: tuple[str, ...] = ()) -> Path:
    """Folder of the checkpoint that `ref` names.

    Args:
        settings: where the runs are.
        ref: see the head of this file.
        kinds: kinds of checkpoint that are allowed; empty is any.

    Raises:
        UnknownNameError: no such run.
        CheckpointError: the run has no such checkpoint, or one of another kind.
    """
    if ref == "latest":
        return _latest(settings, kinds)
    path = Path(ref)
    if (path / "checkpoint.json").is_file():
        found = path.resolve()
    else:
        name, colon, step = ref.rpartition(":")
        if not colon or not step.isdecimal():
            name, step = ref, ""
        parent = run(settings, name) / "checkpoints"
        found = _step(parent, int(step)) if step else _newest(parent)
    kind = checkpoints.read(found).kind
    if kinds and kind not in kinds:
        raise CheckpointError(
            f"{ref} is a checkpoint of kind {kind!r}.", allowed=f"Needed here: {' or '.join(kinds)}."
        )
    return found


def _latest(settings: Settings, kinds: tuple[str, ...]) -> Path:
    for run_id in reversed(folder.ids(settings.runs)):
        found = checkpoints.latest(settings.runs / run_id / "checkpoints")
        if found and (not kinds or checkpoints.read(found).kind in kinds):
            return found
    what = f" of kind {' or '.join(kinds)}" if kinds else ""
    raise CheckpointError(
        f"'latest' finds no checkpoint{what} in {settings.runs}.",
        next_step="Train one first, or name a checkpoint folder.",
    )


def _newest(parent: Path) -> Path:
    found = checkpoints.latest(parent)
    if found is None:
        raise CheckpointError(f"Run {parent.parent.name} has no checkpoint yet.")
    return found


def _step(parent: Path, step: int) -> Path:
    found = parent / f"step_{step:08d}"
    if (found / "checkpoint.json").is_file():
        return found
    steps = [str(int(p.name.removeprefix("step_"))) for p in sorted(parent.glob("step_*"))]
    raise CheckpointError(
        f"Run {parent.parent.name} has no checkpoint at step {step}.",
        allowed=f"Steps: {', '.join(steps)}." if steps else "It has no checkpoint yet.",
    )
