"""Random numbers that belong to an object, not to the order in which objects are handled."""

from __future__ import annotations

import hashlib

import numpy as np


def generator_for(seed: int, row: int, col: int) -> np.random.Generator:
    """Generator for the object centred at an integer level-0 edge (papers.md 0).

    Seeded by SHA-256 of the base seed and the centre alone: never by uid, table row or file
    name, and never by Python's salted ``hash``. So the same cell gets the same views in the
    viewer, on the command line and in Python, whatever its neighbours.
    """
    digest = hashlib.sha256(f"{int(seed)}:{int(row)}:{int(col)}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))
