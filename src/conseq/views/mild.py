"""Changes of a user's vector that leave alone what the history says (ECL-SR's mild augmentations)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def normalised(vectors: Tensor) -> Tensor:
    """Gives vectors of length 1, float ``[B, D]`` (ECL-SR eq. 9)."""
    return F.normalize(vectors, dim=1)


def perturbed(vectors: Tensor, noise: float, rng: torch.Generator) -> Tensor:
    """Gives vectors moved by ``noise`` towards a random point of their own orthant (ECL-SR eqs. 7-8).

    The direction is drawn from the vectors and passes no gradient to them.

    Args:
        vectors: float ``[B, D]``.
        noise: The length of the move.
        rng: On the CPU.

    Returns:
        float ``[B, D]``.
    """
    drawn = torch.rand(vectors.shape, generator=rng).to(vectors) * vectors.detach()
    return vectors + noise * F.normalize(drawn, dim=1)
