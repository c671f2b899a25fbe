"""Hypothesis without its limit on wall time, which says more about a busy machine than about the code."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("melete", deadline=None)
settings.load_profile("melete")
