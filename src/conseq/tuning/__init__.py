"""A search for settings: trials that validation compares, recorded, resumable, and the test part judged once."""

from __future__ import annotations

from conseq.tuning.search import Trial, Tuned, tune
from conseq.tuning.space import Choice, Range, Space, read_space, space_of

__all__ = ["Choice", "Range", "Space", "Trial", "Tuned", "read_space", "space_of", "tune"]
