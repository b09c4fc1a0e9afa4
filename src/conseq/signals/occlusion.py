r"""Occlusion: how much less strongly the next item is predicted where one item's vector is replaced by zero.

.. math:: a_j = y(e_1, \dots, e_n) - y(e_1, \dots, e_{j-1}, 0, e_{j+1}, \dots, e_n)

The occluded item keeps its position and can be attended to. In a causal encoder that counts positions from the
first item, occluding item ``j`` changes the states of ``j`` and of what comes after it and no others, and each of
those states is that of the prefix that ends there. One pass per occluded item therefore answers for all later
prefixes of a history, and only the states from ``j`` on are computed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from conseq.encoders.encoder import Encoder
from conseq.encoders.gru4rec import GRU4Rec
from conseq.encoders.sasrec import SASRec
from conseq.signals.occlusion_sasrec import occluded_states
from conseq.signals.predicted import Predicted
from conseq.signals.questions import Questions

# States that are computed at once: on a CPU few enough to stay in a core's cache.
_CPU_STATES = 2600
_DEVICE_STATES = 400_000


def states_of(lengths: Tensor) -> Tensor:
    """Gives how many states the occlusions of histories of these lengths change: n (n + 1) / 2 each."""
    return lengths * (lengths + 1) // 2


def shares_prefixes(encoder: Encoder) -> bool:
    """Gives True where the state of an item in a history is that of the prefix that ends with it.

    Then all prefixes of a history can be explained together.
    """
    # A class derived from one of these may read a history otherwise; it is explained without a short cut.
    if type(encoder) is SASRec:
        return encoder.config.positions == "start"
    return type(encoder) is GRU4Rec


def occlusion(encoder: Encoder, questions: Questions, predicted: Predicted) -> Tensor:
    """Gives what occluding each item takes from the number that is explained.

    Args:
        encoder: In evaluation mode.
        questions: What is explained. Several questions about one history only where :func:`shares_prefixes`;
            no history longer than the encoder reads, unless it is no :class:`TokenEncoder`.
        predicted: The number that is explained.

    Returns:
        float ``[A]``; negative where the item speaks against the prediction.

    Raises:
        ValueError: if several questions share a history that must be read for each of them anew.
    """
    if not questions.only_last and not shares_prefixes(encoder):
        raise ValueError(f"{type(encoder).__name__} reads each prefix anew; ask one question for each history")
    most = _CPU_STATES if questions.at.device.type == "cpu" else _DEVICE_STATES
    parts = [_states(encoder, part) for part in questions.split(states_of(questions.seqs.lengths), most)]
    whole, occluded = (torch.cat(states) for states in zip(*parts, strict=True))
    targets = predicted.targets(whole, questions.targets)
    asked = targets.index_select(0, questions.rows)
    values = predicted.values(torch.cat([whole, occluded]), torch.cat([targets, asked]))
    before, after = values[: len(targets)], values[len(targets) :]
    return before.index_select(0, questions.rows) - after


def _states(encoder: Encoder, questions: Questions) -> tuple[Tensor, Tensor]:
    """Gives the states from which targets are predicted ``[Q, D]``, and those with an item occluded ``[A, D]``."""
    if type(encoder) is SASRec:
        return occluded_states(encoder, questions)
    seqs = questions.seqs
    copies = seqs.select(seqs.rows)  # one for each item: the one in which it is occluded
    occluded = copies.offsets[:-1] + seqs.positions
    if type(encoder) is GRU4Rec:
        x = encoder.items(copies.ids).index_fill(0, occluded, 0.0)
        at = copies.offsets[questions.items] + seqs.positions[questions.at][questions.rows]
        return encoder.states(seqs)[questions.at], encoder.contextualize(x, copies)[at]
    if encoder.items.weight[0].any():
        raise ValueError("row 0 of the item table, which stands for an occluded item, is not zero")
    return encoder(seqs), encoder(copies.replace(copies.ids.index_fill(0, occluded, 0)))
