"""Matrix factorization: users who were trained on are looked up, strangers are made of their histories."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.encoders.matrix_factorization import MatrixFactorization, MatrixFactorizationConfig
from conseq.nn.items import ItemTable

HISTORIES = Sequences.from_lists([[3, 1], [2], [5, 7, 2, 6, 5], [7, 7, 1]])


def model(rows: list[int] | None = None, max_length: int = 4) -> MatrixFactorization:
    torch.manual_seed(0)
    one = MatrixFactorizationConfig(width=3, max_length=max_length)(ItemTable(7, 3, std=1))
    if rows is not None:
        one.add_users(torch.tensor(rows))
    return one


def stranger(one: MatrixFactorization, history: list[int]) -> Tensor:
    """The mean of the history's items less that of all items, item by item."""
    table = [one.items.weight[item] for item in range(8)]
    met = torch.stack([table[item] for item in history])
    return met.mean(0) - torch.stack(table[1:]).mean(0)


def test_a_stranger_is_made_of_the_last_items_in_whatever_order() -> None:
    one = model()
    expected = torch.stack([stranger(one, row[-4:]) for row in HISTORIES.to_lists()])
    torch.testing.assert_close(one(HISTORIES), expected)
    swapped = one(Sequences.from_lists([[1, 3]]))
    torch.testing.assert_close(swapped[0], one(HISTORIES)[0])


def test_a_strangers_vector_points_where_the_first_step_of_bpr_from_zero_does() -> None:
    """Every pair of an item met and any item of the catalogue, once."""
    one, history = model(), [3, 1]
    zero = torch.zeros(3, requires_grad=True)
    items = one.items.weight.detach()
    pairs = [zero @ (items[met] - items[drawn]) for met in history for drawn in range(1, 8)]
    torch.autograd.backward(-torch.nn.functional.logsigmoid(torch.stack(pairs)).mean())
    assert zero.grad is not None
    step, vector = -zero.grad, one(Sequences.from_lists([history]))[0].detach()
    torch.testing.assert_close(step / step.norm(), vector / vector.norm())


def test_a_user_trained_on_is_looked_up_whatever_the_history() -> None:
    one = model(rows=[4, 0])
    vectors = one.items.candidates
    scores = one.scores(torch.tensor([4, 0, 1, -1]), HISTORIES)  # row 1 was not trained on
    torch.testing.assert_close(scores[:2], torch.stack([one.users[4] @ vectors.T, one.users[0] @ vectors.T]))
    torch.testing.assert_close(scores[2:], one(HISTORIES)[2:] @ vectors.T)
    beyond = one.scores(torch.tensor([5, 99, -1, -1]), HISTORIES)
    torch.testing.assert_close(beyond, one(HISTORIES) @ vectors.T)


def test_users_of_another_log_are_strangers() -> None:
    one = model(rows=[0, 1, 2, 3])
    one.forget_users()
    torch.testing.assert_close(one.scores(torch.arange(4), HISTORIES), one(HISTORIES) @ one.items.candidates.T)


def test_what_is_stored_tells_how_many_users_there_are() -> None:
    trained, fresh = model(rows=[0, 2]), model()
    fresh.load_state_dict(trained.state_dict())
    assert fresh.known.tolist() == [True, False, True]
    users = torch.tensor([0, 1, 2, 3])
    assert torch.equal(fresh.scores(users, HISTORIES), trained.scores(users, HISTORIES))
    narrow = {**trained.state_dict(), "users": torch.zeros(3, 2)}
    with pytest.raises(RuntimeError, match="size mismatch for users"):
        model().load_state_dict(narrow)


def test_the_table_must_be_as_wide_as_the_encoder() -> None:
    with pytest.raises(ValueError, match="the item table is 5 wide, the encoder 3"):
        MatrixFactorizationConfig(width=3)(ItemTable(7, 5))
