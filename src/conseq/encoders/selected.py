"""States of some tokens alone, without what an encoder's last block would compute for the others."""

from __future__ import annotations

from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.encoders.encoder import TokenEncoder
from conseq.encoders.sasrec import Block, SASRec


def states_at(encoder: TokenEncoder, seqs: Sequences, places: Tensor, *, causal: bool) -> Tensor:
    """Gives the states of chosen tokens: the rows ``places`` of :meth:`TokenEncoder.contextualize`.

    Of SASRec's last block the other tokens pass the attention alone. There dropout draws for the chosen tokens alone,
    so that in training the numbers are others than those of all states.

    Args:
        encoder: Any.
        seqs: Sequences of at most ``max_length`` items.
        places: int64 ``[M]``, places in ``seqs.ids``, each at most once.
        causal: A token reads itself and what came before; False: the whole sequence.

    Returns:
        float ``[M, D]``.
    """
    if type(encoder) is not SASRec:
        return encoder.contextualize(encoder.items(seqs.ids), seqs, causal=causal)[places]
    x, top = _below_the_last(encoder, seqs, causal=causal)
    read = top.attention(top.norm1(x) if top.pre else x, seqs, causal=causal)
    return encoder._finish(top._transform(x[places], read[places]))


def last_states(encoder: TokenEncoder, seqs: Sequences, *, causal: bool) -> Tensor:
    """Gives the state of each sequence's last token: the rows ``seqs.last`` of :meth:`TokenEncoder.contextualize`.

    Of SASRec's last block the other tokens are keys and values alone. Dropout as in :func:`states_at`.

    Args:
        encoder: Any.
        seqs: Sequences of at least one item and at most ``max_length``.
        causal: A token reads itself and what came before; False: the whole sequence.

    Returns:
        float ``[B, D]``.
    """
    if type(encoder) is not SASRec:
        return encoder.contextualize(encoder.items(seqs.ids), seqs, causal=causal)[seqs.last]
    x, top = _below_the_last(encoder, seqs, causal=causal)
    return encoder._finish(top.last(x, seqs))  # the last token sees all, causal or not


def _below_the_last(encoder: SASRec, seqs: Sequences, *, causal: bool) -> tuple[Tensor, Block]:
    x = encoder._embed(encoder.items(seqs.ids), seqs)
    *lower, top = encoder._layers()
    for block in lower:
        x = block(x, seqs, causal=causal)
    return x, top
