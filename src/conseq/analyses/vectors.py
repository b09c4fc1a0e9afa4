"""User vectors of many histories."""

from __future__ import annotations

import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.encoders.encoder import Encoder
from conseq.training.trainer import evaluating

_AT_ONCE = 512


@torch.no_grad()
def user_vectors(encoder: Encoder, histories: Sequences, *, dropout_seed: int | None = None) -> Tensor:
    """Gives the vectors of histories, in their order.

    Args:
        encoder: On any device; its mode is restored.
        histories: ``B`` sequences of at least one item each.
        dropout_seed: Encode as in training, with the dropout masks of this seed; None: as in evaluation.

    Returns:
        float32 ``[B, D]``, on the CPU.
    """
    device = encoder.items.weight.device
    # Histories of one length share a batch: they pad little.
    order = torch.argsort(histories.lengths, descending=True, stable=True)
    out = torch.empty(len(histories), encoder.items.width)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), evaluating(encoder):
        if dropout_seed is not None:
            torch.manual_seed(dropout_seed)
            encoder.train()
        for rows in torch.split(order, _AT_ONCE):
            out[rows] = encoder(histories.select(rows).to(device)).float().cpu()
    return out
