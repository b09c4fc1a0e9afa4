"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

# Toy tensors are slower on two threads than on one, and far slower where the cores are shared: here, and in the
# processes that tests start.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says how busy the machine is, and nothing of the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real logs and published weights; skips where it is absent."""
    folder = Path(os.environ.get("CONSEQ_SHARED", Path(__file__).resolve().parents[1].parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data at {folder}; set CONSEQ_SHARED to the folder that holds data/ and checkpoints/")
    return folder


@pytest.fixture(scope="session")
def real_data(shared: Path) -> Path:
    """The folder with the real logs (beauty, sports, toys, yelp, ml-1m); skips where it is absent."""
    return shared / "data"
