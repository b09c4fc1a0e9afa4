"""Contrastive sequential recommendation: train, judge and serve next-item recommenders.

Names are imported when they are first used, so that ``import conseq`` stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conseq.api import Model as Model
    from conseq.api import train as train
    from conseq.data.log import InteractionLog as InteractionLog
    from conseq.data.prepared import load as load
    from conseq.data.readers import read as read
    from conseq.data.synthetic import synthetic as synthetic
    from conseq.encoders.caser import CaserConfig as CaserConfig
    from conseq.encoders.gru4rec import GRU4RecConfig as GRU4RecConfig
    from conseq.encoders.sasrec import SASRecConfig as SASRecConfig
    from conseq.evaluation.ranks import Protocol as Protocol
    from conseq.evaluation.result import Evaluation as Evaluation
    from conseq.methods.next_item import NextItemConfig as NextItemConfig
    from conseq.run.splitting import ByTime as ByTime
    from conseq.run.splitting import ByUser as ByUser
    from conseq.run.splitting import LeaveOneOut as LeaveOneOut
    from conseq.serving.recommender import Recommender as Recommender
    from conseq.training.config import TrainingConfig as TrainingConfig

__version__ = "0.1.0"

_HOMES = {
    "ByTime": "conseq.run.splitting",
    "ByUser": "conseq.run.splitting",
    "CaserConfig": "conseq.encoders.caser",
    "Evaluation": "conseq.evaluation.result",
    "GRU4RecConfig": "conseq.encoders.gru4rec",
    "InteractionLog": "conseq.data.log",
    "LeaveOneOut": "conseq.run.splitting",
    "Model": "conseq.api",
    "NextItemConfig": "conseq.methods.next_item",
    "Protocol": "conseq.evaluation.ranks",
    "Recommender": "conseq.serving.recommender",
    "SASRecConfig": "conseq.encoders.sasrec",
    "TrainingConfig": "conseq.training.config",
    "load": "conseq.data.prepared",
    "read": "conseq.data.readers",
    "synthetic": "conseq.data.synthetic",
    "train": "conseq.api",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604  (names, all of them strings)


def __getattr__(name: str) -> object:
    """Gives a public name from the module that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'conseq' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Gives the public names."""
    return sorted(__all__)
