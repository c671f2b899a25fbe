"""One seed for every generator of random numbers that a process may draw from.

Torch is seeded where it is loaded; a process that loads it later calls `seed_all` again. `rank` keeps the ranks of a
distributed run from drawing the same numbers.
"""

from __future__ import annotations

import random
import sys

import numpy as np


def seed_all(seed: int, rank: int = 0) -> None:
    """Seeds `random`, numpy and, where it is loaded, torch on all its devices."""
    seed = (seed + rank * 1_000_003) % 2**31
    random.seed(seed)
    np.random.seed(seed)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)
