"""The models that a server offers: each a name, a language model, its engine, and where newer weights come from.

A model is named on the command line by a reference (`latest`, a run, a folder, a hub id), by `NAME=REFERENCE`, or is
`echo`. Its id in the API is NAME, or what the model calls itself. `reload` reads newer weights beside the old ones and
swaps them between two steps of the engine; requests that are running go on with the new weights.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melete.errors import CheckpointError, ConfigError, TokenizerError, UnknownNameError
from melete.records import CheckpointRecord
from melete.runs import checkpoints
from melete.settings import Settings

if TYPE_CHECKING:
    import torch

    from melete.llm.engine import Engine
    from melete.llm.lm import LM
    from melete.serve.constraint import Grammars
    from melete.serve.echo import EchoEngine

ECHO = "echo"


@dataclass
class ServedModel:
    """One model behind the API.

    Attributes:
        id: its name in the API.
        lm: weights, tokenizer, chat format.
        engine: what generates.
        ref: the reference it was loaded by.
        checkpoint: folder of the weights in use, None if they are not a checkpoint of ours.
        version: counts the weights that were swapped in; 0 is what it was loaded with.
    """

    id: str
    lm: LM
    engine: Engine | EchoEngine
    ref: str = ""
    checkpoint: Path | None = None
    version: int = 0
    created_s: int = field(default_factory=lambda: int(time.time()))
    lock: threading.Lock = field(default_factory=threading.Lock)
    _grammars: Grammars | None = None

    @property
    def grammars(self) -> Grammars:
        """What makes its constraints; built at the first use."""
        if self._grammars is None:
            from melete.serve.constraint import Grammars

            self._grammars = Grammars(self.lm)
        return self._grammars

    def describe(self) -> dict[str, Any]:
        """Its row in `/v1/models`."""
        return {
            "id": self.id,
            "object": "model",
            "created": self.created_s,
            "owned_by": "melete",
            "max_model_len": self.engine.context,
            "checkpoint": self.checkpoint.name if self.checkpoint else None,
            "version": self.version,
        }

    def swap(self, state_dict: Mapping[str, torch.Tensor], version: int | None = None) -> None:
        """Replaces the weights in the running engine.

        Args:
            state_dict: the new weights.
            version: what to call them; None counts on by one.

        Raises:
            CheckpointError: the tensors do not fit the model.
        """
        self.engine.swap(state_dict)
        self.version = self.version + 1 if version is None else version

    def reload(self, settings: Settings, ref: str | None = None) -> Path | None:
        """Swaps in the weights of `ref`, or the newest ones of the reference it was loaded by.

        Returns the folder now in use.

        Raises:
            UnknownNameError: nothing has that name.
            CheckpointError: the checkpoint is corrupt, or of a model of another shape.
            TokenizerError: the checkpoint was trained with another tokenizer.
        """
        if self.ref == ECHO:
            self.swap({})
            return None
        if self.checkpoint is None:
            self._reload_folder(ref or self.ref)
            return None
        from melete.llm import lm as llm

        folder = llm.checkpoint_folder(ref, settings) if ref else self._newest(settings)
        record = checkpoints.read(folder)
        self._check_fits(folder, record)
        if record.config.get("family") == "transformers":
            from melete.llm import hf

            loaded = llm.load_checkpoint(folder, self.lm.device, next(self.lm.model.parameters()).dtype)
            self.swap(hf.merged_state(loaded.model))
        else:
            self.swap(checkpoints.load(folder, "model"))
        self.checkpoint, self.lm.record = folder, record
        return folder

    def _reload_folder(self, ref: str) -> None:
        from melete.llm import hf

        dtype = next(self.lm.model.parameters()).dtype
        self.swap(hf.merged_state(hf.load(ref, self.lm.device, dtype).model))

    def _newest(self, settings: Settings) -> Path:
        from melete.llm import lm as llm

        assert self.checkpoint is not None
        if Path(self.ref).is_dir():
            return checkpoints.latest(self.checkpoint.parent) or self.checkpoint
        return llm.checkpoint_folder(self.ref, settings)

    def _check_fits(self, folder: Path, record: CheckpointRecord) -> None:
        old = self.lm.record.config if self.lm.record else {}
        for key in ("family", "model"):
            if record.config.get(key) != old.get(key):
                raise CheckpointError(
                    f"{folder} holds a model of another shape than {self.id}.",
                    allowed="Weights can only be swapped between checkpoints of the same architecture.",
                    next_step="Serve it as a model of its own: melete serve --model ...",
                )
        if self.lm.kind == "melete":
            found = json.loads(checkpoints.read_file(folder, "tokenizer.json"))
            if found != json.loads(self.lm.tokenizer.to_bytes()):
                raise TokenizerError(f"{folder} was trained with another tokenizer than {self.id}.")


def load(
    spec: str, settings: Settings, *, device: str = "auto", slots: int = 32, waiting: int = 128
) -> ServedModel:
    """Loads a model by `REFERENCE` or `NAME=REFERENCE`.

    Args:
        spec: what to load; `echo` is the echo model.
        settings: where runs are kept.
        device: auto, cpu, cuda, cuda:N or mps.
        slots: most requests that run at once.
        waiting: most requests that wait before the server answers 429.

    Raises:
        UnknownNameError: nothing has that name; known runs are listed.
        CheckpointError: the checkpoint is missing, corrupt, or not a language model.
    """
    name, _, ref = spec.rpartition("=")
    if ref == ECHO:
        from melete.serve import echo

        substitute = echo.load()
        return ServedModel(
            name or ECHO, substitute, echo.EchoEngine(substitute, slots=slots, waiting=waiting), ECHO
        )
    from melete.llm import lm as llm
    from melete.llm.config import resolve_device
    from melete.llm.engine import Engine

    target = resolve_device(device)
    lm = llm.load(ref, settings, target)
    folder = Path(lm.source) if lm.record is not None else None
    engine = Engine(lm, slots=slots, waiting=waiting)
    return ServedModel(name or _name(lm, folder), lm, engine, ref, folder)


def load_folder(folder: Path, *, device: str = "auto", slots: int = 32, waiting: int = 128) -> ServedModel:
    """Loads a checkpoint folder; its id is the folder's name. See `load`.

    Raises:
        CheckpointError: the checkpoint is missing, corrupt, or not a language model.
    """
    from melete.llm import lm as llm
    from melete.llm.config import compute_dtype, resolve_device
    from melete.llm.engine import Engine

    target = resolve_device(device)
    lm = llm.load_checkpoint(folder, target, compute_dtype(target))
    return ServedModel(
        folder.name, lm, Engine(lm, slots=slots, waiting=waiting), str(folder), folder.resolve()
    )


def _name(lm: LM, folder: Path | None) -> str:
    """What a model calls itself: its run's name or its name within a job, else the run's id or the folder's name."""
    record = folder.parent.parent / "run.json" if folder else None
    if record is None or not record.is_file():
        return lm.name
    run = json.loads(record.read_text(encoding="utf-8"))
    return run.get("name") or run.get("step_name") or lm.name


def load_all(specs: Sequence[str], settings: Settings, **options: Any) -> dict[str, ServedModel]:
    """Loads several models; see `load`.

    Raises:
        ConfigError: two of them have the same id.
    """
    models: dict[str, ServedModel] = {}
    for spec in specs:
        model = load(spec, settings, **options)
        if model.id in models:
            raise ConfigError(
                f"Two models have the name {model.id!r}.", next_step=f"Name one: --model NAME={spec}"
            )
        models[model.id] = model
    return models


def find(models: Mapping[str, ServedModel], name: str) -> ServedModel:
    """A served model by its id.

    Raises:
        UnknownNameError: it is not served.
    """
    if name not in models:
        raise UnknownNameError("served model", name, models)
    return models[name]
