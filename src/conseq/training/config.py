"""Settings of the training loop."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from conseq.config import settings
from conseq.data.train_set import Instances, Windows

Schedule = Literal["constant", "linear", "cosine"]
Precision = Literal["float32", "bfloat16"]


@settings
class TrainingConfig:
    """How a method is trained, on what instances, and when it stops."""

    instances: Instances = "whole"
    """whole: one example per history, all its next items in one pass; prefixes: one per next item, as RecBole does."""
    windows: Windows = True
    """Cut longer histories into windows (whole only), overlapping or disjoint; False: keep only the most recent."""
    batch_size: Annotated[int, Field(ge=1)] = 256
    """Most examples in a batch; batches differ in size by at most one."""
    epochs: Annotated[int, Field(ge=1)] = 100
    """Most passes over the training data."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Adam's step size."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Adam's decay rates."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay (AdamW); 0 is plain Adam."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest gradient norm of a group; no clipping where not given."""
    schedule: Schedule = "constant"
    """How the step size falls to 0 by the last epoch, over all stages of a method: constant, linear, cosine."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """Batches over which the step size rises from 0; at the run's beginning, not again at that of a second stage."""
    metric: str = "NDCG@20"
    """The validation metric that picks the epoch."""
    history: Literal["exclude", "keep"] = "exclude"
    """What validation does with items that a user has met: exclude them from the ranking, or keep them."""
    every: Annotated[int, Field(ge=1)] = 1
    """Epochs from one validation to the next."""
    patience: Annotated[int, Field(ge=1)] | None = 10
    """Validations without a better metric after which training stops; None: never."""
    not_before: Annotated[int, Field(ge=0)] = 0
    """First epoch at which it may stop, for methods whose loss changes on the way."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of the initial weights, the order of examples, views, negatives and dropout."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto: a GPU where there is one."""
    precision: Precision = "float32"
    """Of matrix products (on a CPU: of the full softmax's alone); weights and sums are float32 in any case."""
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 10.0
    """Save in the middle of an epoch, too, where it is longer than this."""
