"""Declares that a change left results as they are: ``equal_code.py METHOD|all "what changed, and the evidence"``."""

from __future__ import annotations

import sys
from pathlib import Path

from conseq.study.equal_code import EQUAL_CODE
from conseq.study.records import declare_equal_code

ROOT = Path(__file__).resolve().parents[2] / "results"

if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} METHOD|all 'what changed, and what shows that results are the same'")
    method = None if sys.argv[1] == "all" else sys.argv[1]
    print(f"{declare_equal_code(ROOT, sys.argv[2], method=method)} pairs of code added to {ROOT / EQUAL_CODE}")
