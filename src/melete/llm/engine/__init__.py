"""The inference engine: continuous batching over requests of different lengths, with a slotted KV cache."""

from melete.errors import EngineFull
from melete.llm.engine.api import (
    Completion,
    Constraint,
    EngineStats,
    Generation,
    Sampling,
    Scored,
    Token,
)
from melete.llm.engine.engine import Engine, score

__all__ = [
    "Completion",
    "Constraint",
    "Engine",
    "EngineFull",
    "EngineStats",
    "Generation",
    "Sampling",
    "Scored",
    "Token",
    "score",
]
