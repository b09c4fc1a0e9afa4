"""What every encoder promises, for each encoder by name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from conseq.config import parse, to_json
from conseq.data.sequences import Sequences, concatenate
from conseq.encoders import ENCODERS
from conseq.encoders.encoder import Encoder, TokenEncoder
from conseq.nn.items import ItemTable

N_ITEMS, WIDTH = 20, 8
TOKEN_ENCODERS = ["sasrec", "gru4rec"]
HISTORIES = [[3, 1, 4], [1], [5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9], [3, 2], [1, 2, 3, 4, 5, 6]]


def encoder(name: str, **settings: object) -> Encoder:
    """Gives an encoder in float64 with every weight moved away from its initial value."""
    torch.manual_seed(0)
    if name == "comirec":
        settings = {"interests": 1, **settings}  # of several, its own tests tell
    config = parse(ENCODERS[name], {"width": WIDTH, "max_length": 6, **settings}, source="test")
    made = config(ItemTable(N_ITEMS, WIDTH)).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def token_encoder(name: str) -> TokenEncoder:
    made = encoder(name)
    assert isinstance(made, TokenEncoder)
    return made


each_encoder = pytest.mark.parametrize("name", ENCODERS)
# Matrix factorization has neither an order nor dropout; its own tests say so.
each_network = pytest.mark.parametrize("name", [name for name in ENCODERS if name != "matrix_factorization"])
each_token_encoder = pytest.mark.parametrize("name", TOKEN_ENCODERS)


@each_encoder
def test_the_encoder_gives_one_vector_per_history_and_one_score_per_item(name: str) -> None:
    model, histories = encoder(name), Sequences.from_lists(HISTORIES)
    users = model(histories)
    scores = model.scores(torch.full((5,), -1), histories)
    assert users.shape == (5, WIDTH)
    assert model.n_items == N_ITEMS
    torch.testing.assert_close(scores, users @ model.items.weight[1 : N_ITEMS + 1].T)


@each_encoder
def test_a_history_is_encoded_alike_whatever_shares_its_batch(name: str) -> None:
    model = encoder(name)
    together = model(Sequences.from_lists(HISTORIES))
    alone = torch.cat([model(Sequences.from_lists([history])) for history in HISTORIES])
    backwards = model(Sequences.from_lists(HISTORIES[::-1])).flip(0)
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(together, backwards)
    assert torch.pdist(together).min() > 0.01


@each_encoder
def test_only_the_last_items_are_read(name: str) -> None:
    model = encoder(name)
    long, short = Sequences.from_lists([[9, 9, *range(1, 7)]]), Sequences.from_lists([list(range(1, 7))])
    torch.testing.assert_close(model(long), model(short))


@each_network
def test_the_order_of_the_items_matters(name: str) -> None:
    model = encoder(name)
    there, back = model(Sequences.from_lists([[1, 2, 3], [3, 2, 1]]))
    assert (there - back).abs().max() > 0.01


@each_encoder
def test_every_item_read_changes_the_vector(name: str) -> None:
    model = encoder(
        name, **({"convolution_activation": "identity", "output_activation": "tanh"} if name == "caser" else {})
    )
    histories = Sequences.from_lists([[1, 2, 3, 4, 5, 6]])
    before = model(histories)
    for place in range(6):
        other = histories.ids.clone()
        other[place] = 15
        assert (model(histories.replace(other)) - before).abs().max() > 1e-6


@each_encoder
def test_reading_writes_into_neither_ids_nor_offsets(name: str) -> None:
    model, histories = encoder(name).train(), Sequences.from_lists(HISTORIES)
    ids, offsets = histories.ids.clone(), histories.offsets.clone()
    torch.autograd.backward(model(histories).sum())
    assert torch.equal(histories.ids, ids)
    assert torch.equal(histories.offsets, offsets)


@each_encoder
def test_the_loss_reaches_every_parameter(name: str) -> None:
    model = encoder(name)
    users = model(Sequences.from_lists(HISTORIES))
    torch.autograd.backward((users * torch.randn(5, WIDTH, dtype=torch.float64)).sum())
    for parameter in filter(torch.numel, model.parameters()):  # matrix factorization has no users yet
        assert parameter.grad is not None
        assert bool(parameter.grad.abs().sum() > 0)


@each_network
def test_dropout_is_on_in_training_and_repeats_with_the_seed(name: str) -> None:
    model, histories = encoder(name, dropout=0.5).train(), Sequences.from_lists(HISTORIES)

    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return model(histories)

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


@each_encoder
def test_the_state_dict_rebuilds_the_encoder(name: str) -> None:
    model, histories = encoder(name), Sequences.from_lists(HISTORIES)
    other = encoder(name)
    with torch.no_grad():
        other.items.weight.zero_()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(histories), model(histories))


@each_encoder
def test_the_settings_survive_json(name: str) -> None:
    settings = parse(ENCODERS[name], {"width": WIDTH, "max_length": 6}, source="test")
    assert parse(ENCODERS[name], to_json(settings), source="test") == settings
    assert (settings.width, settings.max_length) == (WIDTH, 6)


@each_encoder
def test_a_table_of_another_width_is_refused(name: str) -> None:
    settings = parse(ENCODERS[name], {"width": WIDTH}, source="test")
    with pytest.raises(ValueError, match="the item table is 5 wide, the encoder 8"):
        settings(ItemTable(N_ITEMS, 5))


@each_token_encoder
def test_the_vector_is_the_last_state(name: str) -> None:
    model = token_encoder(name)
    histories = Sequences.from_lists([[3, 1, 4], [1], [5, 9, 2, 6, 5, 3]])
    states = model.states(histories)
    assert states.shape == (10, WIDTH)
    torch.testing.assert_close(model(histories), states[[2, 3, 9]])


@each_token_encoder
def test_states_do_not_see_what_comes_later(name: str) -> None:
    model, history = token_encoder(name), [5, 9, 2, 6, 5, 3]
    states = model.states(Sequences.from_lists([history]))
    for place in range(1, 6):
        changed = model.states(Sequences.from_lists([[*history[:place], 17, *history[place + 1 :]]]))
        torch.testing.assert_close(changed[:place], states[:place])
        assert bool(((changed - states)[place:].abs().amax(1) > 1e-6).all())


@each_token_encoder
def test_token_inputs_may_stand_in_for_item_vectors(name: str) -> None:
    model, seqs = token_encoder(name), Sequences.from_lists(HISTORIES[:2])
    other = seqs.replace(torch.zeros_like(seqs.ids))
    x = model.items(seqs.ids)
    torch.testing.assert_close(model.contextualize(x, other), model.states(seqs))


@each_token_encoder
def test_views_can_be_encoded_in_one_pass(name: str) -> None:
    model = token_encoder(name)
    a, b = Sequences.from_lists(HISTORIES[:2]), Sequences.from_lists(HISTORIES[3:])
    torch.testing.assert_close(model.states(concatenate([a, b])), torch.cat([model.states(a), model.states(b)]))


@each_encoder
def test_no_history_gives_no_vector(name: str) -> None:
    assert encoder(name)(Sequences.from_lists([])).shape == (0, WIDTH)


@each_token_encoder
def test_one_pass_over_a_history_equals_one_pass_per_prefix(name: str) -> None:
    model, history = token_encoder(name), [5, 9, 2, 6, 5, 3]
    prefixes = Sequences.from_lists([history[: end + 1] for end in range(6)])
    torch.testing.assert_close(model.states(Sequences.from_lists([history])), model(prefixes))
