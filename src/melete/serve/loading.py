"""Models that come and go while a server runs: loaded by a reference beside those that answer, unloaded when idle.

One is loaded at a time. Before its weights are read, their size is compared with the memory that is free, so that a
model too large is refused at once and the server lives on; what a hub id will need is known only when it is there.
A reference that names a deployed agent loads its version in use, with its guard.
"""

from __future__ import annotations

import threading
from pathlib import Path

import psutil

from melete.errors import (
    CheckpointError,
    DeploymentError,
    DeviceError,
    MeleteError,
    MissingExtraError,
    UnknownNameError,
)
from melete.runs import checkpoints, refs
from melete.serve import deployment, problems
from melete.serve import models as served_models
from melete.serve.agents import Agents, end_when_idle
from melete.serve.models import ServedModel
from melete.serve.problems import Problem
from melete.settings import Settings

ROOM = 1.2
"""Free memory that loading needs, as a multiple of the weights' bytes on disk."""
NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")


def load(agents: Agents, ref: str, name: str = "") -> ServedModel:
    """Loads a model or a deployed agent by its reference. Blocks, for seconds.

    Args:
        agents: of the server that is to have it.
        ref: run (id, beginning, name, `id:step`), `latest`, checkpoint folder, transformers folder, hub id, `echo`, or
            a deployed agent's name or `name_vVERSION`.
        name: its id in the API; empty takes what it calls itself, and then what is there already is not loaded again.

    Raises:
        Problem: nothing has that name, it cannot be loaded, it does not fit into memory, or its id is taken.
    """
    with agents.loading:
        if name and name in agents.models:
            raise _taken(name)
        try:
            if not name and _deployed(agents.settings, ref):
                return agents.models[agents.open(ref).deployment.name]
            if not name and (there := _there(agents, ref)):
                return there
            _refuse_too_large(agents.settings, ref)
            spec = f"{name}={ref}" if name else ref
            model = served_models.load(spec, agents.settings, **agents.options)
        except (MeleteError, ImportError) as error:
            raise _told(error) from error
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and not any(
                said in str(error).lower() for said in NO_MEMORY
            ):
                raise
            raise _no_room(ref) from error
        if model.id in agents.models:
            raise _taken(model.id)
        if agents.running:
            model.engine.start()
        agents.models[model.id] = model
    return model


def unload(agents: Agents, model_id: str) -> None:
    """Takes a model or agent from the server; what it is answering is still answered, then its memory is free.

    Raises:
        Problem: it is not served.
    """
    if model_id not in agents.models:
        raise problems.model_not_found(model_id, agents.models)
    if agents.of(model_id) is not None:
        agents.unload(model_id)
        return
    engine = agents.models.pop(model_id).engine
    if all(model.engine is not engine for model in agents.models.values()):
        threading.Thread(target=end_when_idle, args=(engine,), daemon=True).start()


def _deployed(settings: Settings, ref: str) -> bool:
    """Whether a reference means a deployed agent; where a run has the same name, the run is meant."""
    if deployment.FULL.fullmatch(ref):
        return True
    if ref not in deployment.names(settings):
        return False
    try:
        refs.run(settings, ref)
    except UnknownNameError:
        return True
    return False


def _there(agents: Agents, ref: str) -> ServedModel | None:
    """A plain model here that has the weights of a reference already."""
    try:
        folder = None if ref == served_models.ECHO else refs.checkpoint(agents.settings, ref)
    except MeleteError:
        return None  # no checkpoint of ours; whoever loads it says what is wrong
    for model in list(agents.models.values()):
        same = model.ref == ref if folder is None else model.checkpoint == folder
        if same and agents.of(model.id) is None:
            return model
    return None


def _refuse_too_large(settings: Settings, ref: str) -> None:
    needed = ROOM * _weights_bytes(settings, ref)
    free = psutil.virtual_memory().available
    if needed > free:
        raise _no_room(ref, f"It needs about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free.")


def _weights_bytes(settings: Settings, ref: str) -> int:
    """Bytes of the weights behind a reference; 0 where that is not known before."""
    if any(Path(ref).glob("*.safetensors")):
        return sum(file.stat().st_size for file in Path(ref).glob("*.safetensors"))
    try:
        record = checkpoints.read(refs.checkpoint(settings, ref))
    except MeleteError:
        return 0  # whoever loads it says what is wrong
    return sum(size for name, (size, _) in record.files.items() if not name.startswith("state."))


def _told(error: MeleteError | ImportError) -> Problem:
    if isinstance(error, ImportError):
        library = (error.name or "").split(".")[0]
        from melete.find import EXTRA_OF

        if library not in EXTRA_OF:
            raise error
        error = MissingExtraError(library, EXTRA_OF[library])
    if isinstance(error, MissingExtraError):
        return Problem(503, str(error), param="model", code="missing_extra")
    if isinstance(error, UnknownNameError):
        return Problem(404, str(error), param="model", code="checkpoint_not_found")
    refused = isinstance(error, (CheckpointError, DeploymentError, DeviceError))
    return Problem(409 if refused else 400, str(error), param="model", code="checkpoint_refused")


def _no_room(ref: str, why: str = "Its device has too little free.") -> Problem:
    message = f"There is not enough memory for {ref}. {why} Unload a model, or load a smaller one."
    return Problem(507, message, param="model", code="not_enough_memory")


def _taken(name: str) -> Problem:
    message = (
        f"A model named {name!r} is served here already. Give this one another name, or unload that one."
    )
    return Problem(409, message, param="name", code="name_taken")
