"""CL4SRec term by term, against its equations on a tiny batch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from conseq.config import parse
from conseq.data.sequences import Sequences
from conseq.data.train_set import Batch, Instances, TrainSet
from conseq.encoders.caser import CaserConfig
from conseq.encoders.sasrec import SASRec, SASRecConfig
from conseq.methods.cl4srec import CL4SRec, CL4SRecConfig
from conseq.training.config import TrainingConfig
from conseq.training.trainer import Trainer

N_ITEMS, MASK = 9, 10
LISTS = [[1, 2, 3, 4, 5], [6, 7, 8, 9], [2, 4, 6], [9, 1, 5, 3, 7, 2]]
CALM = SASRecConfig(width=8, layers=2, heads=2, max_length=6, dropout=0.0, attention_dropout=0.0)
both_ways = pytest.mark.parametrize("instances", ["prefixes", "whole"])


def make(config: CL4SRecConfig, instances: Instances = "prefixes") -> tuple[CL4SRec, Batch]:
    train = TrainSet(Sequences.from_lists(LISTS), torch.arange(4), N_ITEMS, instances=instances, max_length=6)
    torch.manual_seed(0)
    method = CL4SRec(config, train, CALM)
    with torch.no_grad():
        method.encoder.items.weight.mul_(20)  # scores far enough apart for the terms to differ
    return method, train.batch(torch.arange(len(train)))


def rng(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def state_of(method: CL4SRec, history: list[int]) -> Tensor:
    """The last state of a history that is encoded on its own."""
    assert isinstance(method.encoder, SASRec)
    return method.encoder.states(Sequences.from_lists([history]))[-1].detach()


def slow_contrast(method: CL4SRec, views: tuple[Sequences, Sequences], users: list[int] | None = None) -> float:
    """Eq. 3 with every view encoded alone; examples of one of the ``users`` are no negatives of each other."""
    z = [state_of(method, history) for view in views for history in view.to_lists()]
    half, total = len(z) // 2, 0.0
    for i, anchor in enumerate(z):
        scores = {j: float(anchor @ z[j]) / method.config.temperature for j in range(len(z)) if j != i}
        own = (i + half) % len(z)
        kept = [s for j, s in scores.items() if j == own or users is None or users[j % half] != users[i % half]]
        total += math.log(sum(math.exp(s - scores[own]) for s in kept))
    return total / len(z)


def slow_next_item(method: CL4SRec, batch: Batch) -> float:
    """Full softmax, one next item at a time."""
    weight, total = method.encoder.items.weight.detach(), 0.0
    for place, target in zip(batch.at.tolist(), batch.next_ids.tolist(), strict=True):
        row = int(batch.history.rows[place])
        start = int(batch.history.offsets[row])
        state = state_of(method, batch.history.ids[start : place + 1].tolist())
        scores = [float(state @ weight[item]) for item in range(1, N_ITEMS + 1)]
        total += math.log(sum(math.exp(s - scores[target - 1]) for s in scores))
    return total / len(batch.at)


@both_ways
def test_the_loss_is_the_papers_equations_term_by_term(instances: Instances) -> None:
    config = CL4SRecConfig(loss="cross_entropy", contrast=0.3, temperature=0.7)
    method, batch = make(config, instances)
    terms = method.loss(batch, rng())
    assert list(terms) == ["next_item", "contrast"]
    assert terms["next_item"].item() == pytest.approx(slow_next_item(method, batch), abs=1e-5)
    views = method.views(batch.history, rng())
    assert terms["contrast"].item() == pytest.approx(0.3 * slow_contrast(method, views), abs=1e-5)


def test_the_papers_next_item_loss_sets_the_target_against_one_sampled_item() -> None:
    method, batch = make(CL4SRecConfig())
    rows = rng()
    method.views(batch.history, rows)  # the views are drawn first
    assert method.prediction.sampler is not None
    drawn = method.prediction.sampler.draw(batch.users, 1, rows)[:, 0]
    states = torch.stack([state_of(method, history) for history in batch.history.to_lists()])
    weight = method.encoder.items.weight.detach()
    gap = (states * weight[batch.targets]).sum(1) - (states * weight[drawn]).sum(1)
    expected = -torch.sigmoid(gap).log().mean()
    assert method.loss(batch, rng())["next_item"].item() == pytest.approx(expected.item(), abs=1e-5)


@both_ways
def test_histories_of_the_same_user_can_be_left_out_of_the_negatives(instances: Instances) -> None:
    method, batch = make(
        CL4SRecConfig(loss="cross_entropy", contrast=1.0, temperature=5.0, remove_same_user=True), instances
    )
    found = method.loss(batch, rng())["contrast"].item()
    views = method.views(batch.history, rng())
    assert found == pytest.approx(slow_contrast(method, views, batch.users.tolist()), abs=1e-5)
    differs = found != pytest.approx(slow_contrast(method, views), abs=1e-4)
    assert differs == (instances == "prefixes")  # `whole` has one example per user here


def test_a_mask_is_the_encoders_mask_and_ratios_are_those_of_the_settings() -> None:
    method, _ = make(CL4SRecConfig(crop=0.5, mask=0.25, reorder=0.75))
    assert repr(method.views) == (
        "TwoOf(operators=(Crop(ratio=0.5, spare_last=False), Mask(ratio=0.25, mask_id=10), "
        "Reorder(ratio=0.75, spare_last=False)))"
    )


def test_an_operator_that_is_left_out_makes_no_view() -> None:
    history = Sequences.from_lists([list(range(1, 10))] * 200)
    method, _ = make(CL4SRecConfig(operators=("crop", "reorder")))
    assert all(MASK not in row for view in method.views(history, rng()) for row in view.to_lists())
    method, _ = make(CL4SRecConfig(operators=("mask",)))
    for view in method.views(history, rng()):
        assert all(row.count(MASK) == 2 for row in view.to_lists())
    method, _ = make(CL4SRecConfig(operators=("reorder", "mask")))
    for first, second in zip(*(view.to_lists() for view in method.views(history, rng())), strict=True):
        assert (MASK in first) != (MASK in second)


def test_the_weight_of_the_contrast_scales_it_and_nothing_else() -> None:
    one, batch = make(CL4SRecConfig(contrast=1.0))
    none, _ = make(CL4SRecConfig(contrast=0.0))
    whole, without = one.loss(batch, rng()), none.loss(batch, rng())
    assert whole["next_item"].item() == without["next_item"].item()
    assert whole["contrast"].item() > 0
    assert without["contrast"].item() == 0


def test_history_and_views_share_one_pass() -> None:
    method, batch = make(CL4SRecConfig())
    sizes: list[int] = []
    method.encoder.register_forward_hook(lambda module, args, out: sizes.append(len(args[0])))
    method.loss(batch, rng())
    assert sizes == [3 * len(batch)]


def test_an_epoch_of_training_leaves_the_stored_data_as_they_are() -> None:
    method, _ = make(CL4SRecConfig(mask=1.0))
    stored = method.train_set.sequences.ids.clone()
    Trainer(method, TrainingConfig(epochs=3, batch_size=4, patience=None), lambda encoder: {"NDCG@20": 0.0}).fit()
    assert torch.equal(method.train_set.sequences.ids, stored)


def test_an_encoder_without_token_states_can_be_trained_on_prefixes_only() -> None:
    for instances, enough in (("prefixes", True), ("whole", False)):
        train = TrainSet(
            Sequences.from_lists(LISTS),
            torch.arange(4),
            N_ITEMS,
            instances=instances,  # type: ignore[arg-type]
            max_length=6,
        )
        method = CL4SRec(CL4SRecConfig(), train, CaserConfig(width=8))
        batch = train.batch(torch.arange(len(train)))
        if enough:
            assert all(torch.isfinite(term) for term in method.loss(batch, rng()).values())
        else:
            with pytest.raises(ValueError, match="no token states"):
                method.loss(batch, rng())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"operators": []}, "operators"),
        ({"operators": ["crop", "flip"]}, "operators"),
        ({"crop": 1.5}, "crop"),
        ({"temperature": 0}, "temperature"),
        ({"contrasts": 0.1}, "did you mean 'contrast'"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(CL4SRecConfig, values, source="test")
