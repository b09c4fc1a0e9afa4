"""How much each item of a history counts for the prediction of the next one (EC4SRec section 4.2).

For all examples of a train set at once, :class:`Importance`; for given histories, :func:`explain`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from conseq.data.sequences import Sequences, offsets_of, slices
from conseq.data.train_set import Batch, TrainSet
from conseq.encoders.encoder import Encoder, TokenEncoder
from conseq.encoders.sasrec import SASRec
from conseq.signals.attribution import attention, integrated_gradients, saliency
from conseq.signals.occlusion import occlusion, shares_prefixes, states_of
from conseq.signals.predicted import Differenced, Predicted
from conseq.signals.questions import Questions, cuts_of

Explanation = Literal["occlusion", "saliency", "integrated_gradients", "attention"]

# States that are computed at once: on a CPU few enough to stay in a core's cache.
_CPU_STATES = 3000
_DEVICE_STATES = 400_000


@dataclass(frozen=True)
class Explainer:
    r"""Gives the importance of each item of a prefix for the item that came next (EC4SRec eq. 5).

    .. math:: score(v_j) = \frac{\sum_f |a_{jf}|}{\sum_i \sum_f |a_{if}|}

    with the attributions a. Where all of them are zero, every item counts alike.

    Attributes:
        explanation: How attributions are made. ``occlusion`` explains any encoder, ``saliency`` and
            ``integrated_gradients`` those that read item vectors, ``attention`` SASRec.
        differenced: The number that is explained, see :class:`Predicted`; of no effect for ``attention``.
        signed: Keep the sign of an item's attribution, summed over its dimensions. The importances of a history
            then sum to 1 in absolute value.
        steps: Points of the integral of ``integrated_gradients``.
    """

    explanation: Explanation = "occlusion"
    differenced: Differenced = "probability"
    signed: bool = False
    steps: int = 20

    def __call__(self, encoder: Encoder, questions: Questions, predicted: Predicted | None = None) -> Tensor:
        """Gives the importances.

        Args:
            encoder: In evaluation mode.
            questions: What is explained; several questions about one history where :meth:`shares` says so.
            predicted: What :meth:`predicted` gave for the encoder, where that is asked for more than once.

        Returns:
            float ``[A]``; the answer to each question sums to 1.

        Raises:
            ValueError: if the explanation cannot explain the encoder.
        """
        self.check(encoder)
        found = self._attributions(encoder, questions, predicted or self.predicted(encoder))
        if found.dim() == 2:
            found = (found if self.signed else found.abs()).sum(1)
        if not self.signed:
            found = found.abs()
        total = found.new_zeros(len(questions.at)).index_add_(0, questions.rows, found.abs())
        alike = 1 / questions.lengths.to(found.dtype)
        none = (total == 0)[questions.rows]
        return torch.where(none, alike[questions.rows], found / total[questions.rows].masked_fill(none, 1.0))

    def check(self, encoder: Encoder) -> None:
        """Refuses an encoder for which the explanation says nothing.

        Args:
            encoder: Any.

        Raises:
            ValueError: if gradients are asked of an encoder that reads no item vectors, attention of one that is no
                SASRec, or signed gradients of SASRec.
        """
        reads_vectors, attends = isinstance(encoder, TokenEncoder), isinstance(encoder, SASRec)
        if self.explanation in ("saliency", "integrated_gradients") and not reads_vectors:
            raise ValueError(
                f"{self.explanation} needs an encoder that reads item vectors, found {type(encoder).__name__}; "
                "choose occlusion"
            )
        if self.explanation == "attention" and not attends:
            raise ValueError(f"attention needs the encoder sasrec, found {type(encoder).__name__}; choose occlusion")
        if self.signed and self.explanation == "saliency" and isinstance(encoder, SASRec):
            # Of what enters through a layer normalisation, the gradients sum to 0 over the dimensions.
            raise ValueError(
                "signed saliency of SASRec is 0 for every item, but for rounding: its layer normalisation lets nothing "
                "through that all dimensions share; use signed = false, occlusion or integrated_gradients"
            )

    def shares(self, encoder: Encoder) -> bool:
        """Gives True where all prefixes of a history can be explained together."""
        return self.explanation in ("occlusion", "attention") and shares_prefixes(encoder)

    def predicted(self, encoder: Encoder) -> Predicted:
        """Gives the number that is explained, for an encoder as it is now."""
        return Predicted(encoder.items, self.differenced)

    def _attributions(self, encoder: Encoder, questions: Questions, predicted: Predicted) -> Tensor:
        """Gives attributions of items ``[A]`` or of their dimensions ``[A, D]``."""
        if self.explanation == "attention":
            return attention(encoder, questions)
        if self.explanation == "occlusion":
            return occlusion(encoder, questions, predicted)
        if self.explanation == "saliency":
            return saliency(encoder, questions, predicted)
        return integrated_gradients(encoder, questions, predicted, steps=self.steps)


def explain(encoder: Encoder, histories: Sequences, targets: Tensor, explainer: Explainer | None = None) -> Tensor:
    """Gives how much each item of each history counts for the item that came next.

    Args:
        encoder: Explained as it evaluates, whatever mode it is in.
        histories: ``B`` sequences of at least one item.
        targets: int64 ``[B]``, the item that came after each.
        explainer: How; by occlusion where not given.

    Returns:
        float ``[N]``, one number per item, with sum 1 in each history; 0 for items before those that a
        :class:`TokenEncoder` reads.

    Raises:
        ValueError: if the explanation cannot explain the encoder.
    """
    read = histories.tail(encoder.max_length) if isinstance(encoder, TokenEncoder) else histories
    skipped = histories.lengths - read.lengths
    with _evaluating(encoder):
        found = (explainer or Explainer())(encoder, Questions.after_the_end(read, targets))
    out = found.new_zeros(histories.ids.numel())
    out[histories.positions >= skipped[histories.rows]] = found
    return out


class Importance(nn.Module):
    """The importances of the items of every example of a train set, as of the last time they were computed.

    They are a buffer whose size never changes, one number per item of each example's history, so that a
    checkpoint holds them and a run resumed between two updates goes on with the same.

    Args:
        train: The examples.
        explainer: How importances are made; by occlusion where not given.

    Attributes:
        ready: Whether there are importances.
        scores: float32 ``[S]``, S the sum of the lengths of all examples' histories.
    """

    ready: bool
    scores: Tensor
    offsets: Tensor
    _made: Tensor

    def __init__(self, train: TrainSet, explainer: Explainer | None = None) -> None:
        super().__init__()
        self.train_set = train
        self.explainer = explainer or Explainer()
        offsets = offsets_of(train.end - train.start)
        self.register_buffer("scores", torch.zeros(int(offsets[-1]), device=train.device))
        self.register_buffer("offsets", offsets, persistent=False)
        self.register_buffer("_made", torch.tensor(False))
        # A Python value: asking the buffer at every step would wait for the device.
        self.ready = False
        self.register_load_state_dict_post_hook(_look_again)  # type: ignore[no-untyped-call]

    def of(self, batch: Batch) -> Tensor:
        """Gives the importances of the items of a batch's histories.

        Args:
            batch: Cut from the train set.

        Returns:
            float32 ``[N]``, in the places of ``batch.history.ids``.

        Raises:
            ValueError: if there are no importances yet.
        """
        return self.of_examples(batch.rows)

    def of_examples(self, rows: Tensor) -> Tensor:
        """Gives the importances of the items of the histories of examples ``rows`` (int64 ``[B]``), float32 ``[N]``."""
        if not self.ready:
            raise ValueError("there are no importances yet; call refresh(encoder), or put(scores)")
        return slices(self.scores, self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]).ids

    def refresh(self, encoder: Encoder) -> None:
        """Computes all importances anew.

        Args:
            encoder: Explained as it evaluates, whatever mode it is in.

        Raises:
            ValueError: if the explanation cannot explain the encoder.
        """
        with _evaluating(encoder):
            self.scores.fill_(1.0)  # the only item of a history has all of the importance
            predicted = self.explainer.predicted(encoder)
            for questions, examples in self._questions(encoder):
                found = self.explainer(encoder, questions, predicted).to(self.scores.dtype)
                shift = (self.offsets[examples] - questions.offsets[:-1])[questions.rows]
                self.scores[torch.arange(len(found), device=found.device) + shift] = found
        self._done()

    def put(self, scores: Tensor) -> None:
        """Takes over importances that were made elsewhere.

        Args:
            scores: ``[S]``, one number per item of each example's history, in the order of the examples; or
                ``[T]``, one per item of the train set's sequences, the same for all examples that read it.

        Raises:
            ValueError: if there are neither S nor T of them, or one is not finite.
        """
        if scores.shape == self.train_set.sequences.ids.shape != self.scores.shape:
            train = self.train_set
            scores = slices(scores, train.start, train.end - train.start).ids
        if scores.shape != self.scores.shape:
            raise ValueError(
                f"expected {self.scores.numel()} importances, one per item of each example's history, or "
                f"{self.train_set.sequences.ids.numel()}, one per item of the training sequences; "
                f"found {list(scores.shape)}"
            )
        if not scores.isfinite().all():
            raise ValueError("importances must be finite")
        self.scores.copy_(scores)
        self._done()

    def _done(self) -> None:
        self._made.fill_(True)
        self.ready = True

    def _questions(self, encoder: Encoder) -> Iterator[tuple[Questions, Tensor]]:
        """Gives questions about all examples of two items or more, some at a time, with the examples' numbers."""
        train = self.train_set
        examples = (train.end - train.start > 1).nonzero()[:, 0]
        if not len(examples):
            return
        begin, end = train.start[examples], train.end[examples]
        starts, group = begin, torch.arange(len(begin), device=begin.device)
        if self.explainer.shares(encoder):
            # Examples whose histories begin with the same item are prefixes of one another.
            starts, group = torch.unique(begin, return_inverse=True)
        lengths = torch.zeros_like(starts).scatter_reduce_(0, group, end - begin, "amax")
        place = torch.empty_like(starts)
        for these, members in self._parts(lengths, group, end):
            seqs = slices(train.sequences.ids, starts[these], lengths[these])
            place[these] = seqs.offsets[:-1]
            at = place[group[members]] + (end - begin)[members] - 1
            yield Questions(seqs, at, train.sequences.ids[end[members]]), examples[members]

    def _parts(self, lengths: Tensor, group: Tensor, end: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Gives which histories are read together, and the examples about them in the order of their ends.

        Args:
            lengths: int64 ``[G]``, of the histories.
            group: int64 ``[E]``, the history of each example.
            end: int64 ``[E]``, where each example ends.

        Yields:
            Some histories, int64, and their examples, int64.
        """
        members = torch.bincount(group, minlength=len(lengths))
        # Histories of like length pad little; those with one question each are answered from last states alone.
        by_length = torch.argsort(lengths + (members == 1) * (self.train_set.max_length + 1), stable=True)
        rank = torch.empty_like(by_length)
        rank[by_length] = torch.arange(len(rank), device=rank.device)
        by_end = torch.argsort(end, stable=True)
        order = by_end[torch.argsort(rank[group[by_end]], stable=True)]
        most = _CPU_STATES if lengths.device.type == "cpu" else _DEVICE_STATES
        # Occlusion divides its work further; what is divided here is what it holds at once.
        occlusion = self.explainer.explanation == "occlusion"
        cost = states_of(lengths) if occlusion else lengths
        cuts = cuts_of(cost[by_length], 10 * most if occlusion else most)
        asked = members[by_length].cumsum(0)[cuts - 1]
        yield from zip(by_length.tensor_split(cuts.cpu()), order.tensor_split(asked.cpu()), strict=True)


def _look_again(importance: Importance, keys: object) -> None:
    """Reads whether there are importances from a state that was just loaded."""
    importance.ready = bool(importance._made)


@contextmanager
def _evaluating(encoder: Encoder) -> Iterator[None]:
    """Holds the encoder in evaluation mode, without gradients."""
    mode = encoder.training
    encoder.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        encoder.train(mode)
