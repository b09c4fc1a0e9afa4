from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from conseq.data.sequences import Sequences
from conseq.nn import dropout
from conseq.nn.attention import SelfAttention, blocks

ONE_WIDTH = [3, 1, 2, 3]
MANY_WIDTHS = [1, 7, 6, 12, 0, 13, 24, 2, 25, 50, 49, 48, 7]  # on both sides of every edge between widths


def lengths_to_sequences(lengths: list[int]) -> Sequences:
    return Sequences.from_lists([[1] * length for length in lengths])


def attention(width: int = 8, heads: int = 2, p: float = 0.0) -> SelfAttention:
    torch.manual_seed(0)
    return SelfAttention(width, heads, p).double()


def oracle(ours: SelfAttention, x: Tensor, seqs: Sequences, *, causal: bool) -> Tensor:
    """Gives the output of torch's own module with the same weights, one sequence at a time."""
    theirs = nn.MultiheadAttention(ours.query.in_features, ours.heads, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    found = []
    for one in torch.split(x, seqs.lengths.tolist()):
        if len(one):
            hidden = torch.ones(len(one), len(one), dtype=torch.bool).triu(1) if causal else None
            found.append(theirs(one[None], one[None], one[None], attn_mask=hidden, need_weights=False)[0][0])
    return torch.cat(found)


@pytest.fixture
def nothing_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes dropout keep everything, while the training path is taken."""
    monkeypatch.setattr(dropout, "keep_mask", lambda like, p: torch.ones_like(like))


@pytest.mark.parametrize("lengths", [ONE_WIDTH, MANY_WIDTHS, [1], [0, 4], [9, 9]])
@pytest.mark.parametrize("causal", [True, False])
def test_each_sequence_is_attended_as_torch_does_it_alone(lengths: list[int], *, causal: bool) -> None:
    ours, seqs = attention().eval(), lengths_to_sequences(lengths)
    x = torch.randn(sum(lengths), 8, dtype=torch.float64)
    torch.testing.assert_close(ours(x, seqs, causal=causal), oracle(ours, x, seqs, causal=causal))


@pytest.mark.usefixtures("nothing_dropped")
@pytest.mark.parametrize("lengths", [ONE_WIDTH, MANY_WIDTHS])
@pytest.mark.parametrize("causal", [True, False])
def test_the_training_path_computes_the_same_attention(lengths: list[int], *, causal: bool) -> None:
    ours, seqs = attention(p=0.5), lengths_to_sequences(lengths)
    x = torch.randn(sum(lengths), 8, dtype=torch.float64)
    torch.testing.assert_close(ours.train()(x, seqs, causal=causal), ours.eval()(x, seqs, causal=causal))


@pytest.mark.usefixtures("nothing_dropped")
@pytest.mark.parametrize("lengths", [[3, 2], [1, 7, 0, 2]])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_right_on_both_paths(lengths: list[int], *, causal: bool, training: bool) -> None:
    ours, seqs = attention(4, 2, p=0.5).train(training), lengths_to_sequences(lengths)
    x = torch.randn(sum(lengths), 4, dtype=torch.float64, requires_grad=True)
    weights = tuple(ours.parameters())
    assert torch.autograd.gradcheck(lambda one, *_: ours(one, seqs, causal=causal), (x, *weights))


@pytest.mark.usefixtures("nothing_dropped")
@pytest.mark.parametrize("lengths", [ONE_WIDTH, [one for one in MANY_WIDTHS if one], [1]])
@pytest.mark.parametrize("training", [True, False])
def test_the_last_tokens_alone_read_what_they_read_among_all(lengths: list[int], *, training: bool) -> None:
    ours, seqs = attention(p=0.5).train(training), lengths_to_sequences(lengths)
    x = torch.randn(sum(lengths), 8, dtype=torch.float64)
    torch.testing.assert_close(ours.last(x, seqs), ours(x, seqs)[seqs.last])


def test_dropout_zeroes_probabilities_and_scales_the_rest() -> None:
    ours = attention(4, 1, p=0.5).train()
    with torch.no_grad():
        for layer in (ours.value, ours.out):
            layer.weight.copy_(torch.eye(4))
            layer.bias.zero_()
        ours.query.weight.zero_()
        ours.query.bias.zero_()
    read = ours(torch.eye(4, dtype=torch.float64), lengths_to_sequences([4]), causal=False)
    # Every probability is 1/4, so an output entry is 0 where it is dropped and 2/4 where it is kept.
    assert set(read.flatten().tolist()) == {0.0, 0.5}


def test_without_dropout_training_and_evaluation_agree() -> None:
    ours, seqs = attention(p=0.0), lengths_to_sequences(MANY_WIDTHS)
    x = torch.randn(sum(MANY_WIDTHS), 8, dtype=torch.float64)
    assert torch.equal(ours.train()(x, seqs), ours.eval()(x, seqs))


@pytest.mark.parametrize("lengths", [ONE_WIDTH, MANY_WIDTHS, [1], [0, 4], [400, 3], []])
def test_blocks_hold_every_token_once(lengths: list[int]) -> None:
    seqs = lengths_to_sequences(lengths)
    owner = list(zip(seqs.rows.tolist(), seqs.positions.tolist(), strict=True))
    held: list[int] = []
    for block in blocks(seqs):
        tokens = range(len(owner)) if block.tokens is None else block.tokens.tolist()
        rows = sorted({owner[token][0] for token in tokens})
        assert block.lengths.tolist() == [lengths[row] for row in rows if lengths[row]] or block.tokens is None
        assert int(block.lengths.max()) == block.width
        for token, slot in zip(tokens, block.slots.tolist(), strict=True):
            row, position = owner[token]
            assert slot == rows.index(row) * block.width + position
        held.extend(tokens)
    assert sorted(held) == list(range(sum(lengths)))


def test_short_sequences_are_not_padded_to_a_long_ones_length() -> None:
    assert [block.width for block in blocks(lengths_to_sequences([2, 50, 3, 1]))] == [3, 50]


def test_a_batch_without_a_token_gives_no_state() -> None:
    assert attention()(torch.empty(0, 8, dtype=torch.float64), lengths_to_sequences([0, 0])).shape == (0, 8)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="width 6 is not a multiple of the number of heads, 4"):
        SelfAttention(6, 4, 0.0)
