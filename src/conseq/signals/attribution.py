r"""What each item of a history adds to a prediction, by gradients and by attention.

Occlusion is in :mod:`conseq.signals.occlusion`.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from torch import Tensor

from conseq.encoders.encoder import Encoder, TokenEncoder
from conseq.encoders.sasrec import Block, SASRec
from conseq.signals.occlusion import shares_prefixes
from conseq.signals.predicted import Predicted
from conseq.signals.questions import Questions


def saliency(encoder: Encoder, questions: Questions, predicted: Predicted) -> Tensor:
    r"""Gives the gradient of the prediction by the item vectors (Simonyan et al., 2013; EC4SRec section 4.2).

    .. math:: a_{jf} = \partial y / \partial e_{jf}

    Args:
        encoder: In evaluation mode.
        questions: One for each history, about all of it.
        predicted: The number y that is explained.

    Returns:
        float ``[A, D]``.

    Raises:
        ValueError: if a history has several questions, or the encoder takes no item vectors.
    """
    encoder = _reads_vectors(encoder, questions, "saliency")
    vectors = encoder.items(questions.seqs.ids).detach()
    targets = _targets(encoder, questions, predicted, vectors)
    return _gradient(encoder, questions, predicted, vectors, targets)


def integrated_gradients(encoder: Encoder, questions: Questions, predicted: Predicted, *, steps: int) -> Tensor:
    r"""Gives the gradient along the way from no items to the items (Sundararajan et al., ICML 2017, eq. 1).

    .. math:: a_{jf} = e_{jf} \int_0^1 \frac{\partial y(\alpha e)}{\partial e_{jf}} \, d\alpha

    with zero vectors as the beginning and the integral by Gauss-Legendre quadrature. Over all items and
    dimensions, they sum to the difference of y between the history and one of zero vectors.

    Args:
        encoder: In evaluation mode.
        questions: One for each history, about all of it.
        predicted: The number y that is explained.
        steps: Points of the quadrature, at least 1; each costs as much as :func:`saliency`.

    Returns:
        float ``[A, D]``.

    Raises:
        ValueError: if a history has several questions, the encoder takes no item vectors, or there are no steps.
    """
    if steps < 1:
        raise ValueError(f"integrated gradients need at least 1 step, found {steps}")
    encoder = _reads_vectors(encoder, questions, "integrated_gradients")
    vectors = encoder.items(questions.seqs.ids).detach()
    targets = _targets(encoder, questions, predicted, vectors)
    points, weights = np.polynomial.legendre.leggauss(steps)
    total = torch.zeros_like(vectors)
    for point, weight in zip(points.tolist(), weights.tolist(), strict=True):
        slope = _gradient(encoder, questions, predicted, vectors * ((1 + point) / 2), targets)
        total.add_(slope, alpha=weight / 2)
    return total * vectors


def attention(encoder: Encoder, questions: Questions) -> Tensor:
    """Gives how much of each item the last item's state reads in the last layer, averaged over the heads.

    Args:
        encoder: A :class:`SASRec` in evaluation mode.
        questions: Several about one history only where the encoder counts positions from the first item.

    Returns:
        float ``[A]``, not negative, with sum 1 in each answer.

    Raises:
        ValueError: if the encoder has no causal attention, or must read a history for each question anew.
    """
    if not isinstance(encoder, SASRec):
        raise ValueError(f"{type(encoder).__name__} has no attention to explain it; choose occlusion")
    if not questions.only_last and not shares_prefixes(encoder):
        raise ValueError("with positions counted from the end, ask one question for each history")
    seqs = questions.seqs
    read: list[Tensor] = []
    *_, top = [cast("Block", block) for block in encoder.blocks]
    handle = top.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    try:
        encoder.states(seqs)
    finally:
        handle.remove()
    x = top.norm1(read[0]) if top.pre else read[0]
    heads, width = top.attention.heads, x.shape[1]
    query = top.attention.query(x[questions.at]).index_select(0, questions.rows)
    key = top.attention.key(x).index_select(0, questions.items)
    scores = (query * key).view(len(key), heads, -1).sum(2) / math.sqrt(width / heads)
    # A softmax over each answer: its largest score is taken off first.
    rows = questions.rows[:, None].expand_as(scores)
    most = scores.new_full((len(questions.at), heads), -torch.inf).scatter_reduce(0, rows, scores, "amax")
    weight = (scores - most[questions.rows]).exp()
    total = torch.zeros_like(most).index_add(0, questions.rows, weight)
    out: Tensor = (weight / total[questions.rows]).mean(1)
    return out


def _reads_vectors(encoder: Encoder, questions: Questions, name: str) -> TokenEncoder:
    if not questions.only_last:
        raise ValueError(f"{name} asks one question for each history")
    if not isinstance(encoder, TokenEncoder):
        raise ValueError(f"{type(encoder).__name__} takes items and no item vectors; choose occlusion, not {name}")
    return encoder


def _targets(encoder: TokenEncoder, questions: Questions, predicted: Predicted, vectors: Tensor) -> Tensor:
    with torch.no_grad():
        whole = encoder.contextualize(vectors, questions.seqs)[questions.at]
        return predicted.targets(whole, questions.targets)


def _gradient(
    encoder: TokenEncoder, questions: Questions, predicted: Predicted, vectors: Tensor, targets: Tensor
) -> Tensor:
    """Gives the gradient of each history's prediction by its own item vectors, float ``[A, D]``."""
    with torch.enable_grad():
        vectors = vectors.detach().requires_grad_()
        states = encoder.contextualize(vectors, questions.seqs)[questions.at]
        # Histories do not mix, so the gradient of the sum holds that of each.
        return torch.autograd.grad(states, vectors, predicted.gradients(states.detach(), targets))[0]
