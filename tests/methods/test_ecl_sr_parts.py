from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from conseq.data.sequences import Sequences
from conseq.data.train_set import Batch, Instances, TrainSet
from conseq.encoders.bert4rec import BERT4Rec, BERT4RecConfig
from conseq.encoders.caser import CaserConfig
from conseq.encoders.gru4rec import GRU4RecConfig
from conseq.encoders.sasrec import SASRecConfig
from conseq.methods.ecl_sr import ECLSR, ECLSRConfig, Invasive
from conseq.training.config import TrainingConfig
from conseq.training.trainer import Stopped, Trainer

N_ITEMS, WIDTH, LENGTH = 15, 8, 8
LISTS = [[1, 2, 3, 4, 5, 6], [7, 8, 9, 7], [10, 11, 12, 13, 14, 15, 1, 2, 3], [4, 6]]
INVASIVE: list[Invasive] = [
    "masked_substitution",
    "random_substitution",
    "insertion",
    "deletion",
    "cropping",
    "reordering",
]

CALM = SASRecConfig(width=WIDTH, layers=2, heads=2, max_length=LENGTH, dropout=0.0, attention_dropout=0.0)
ROUGH = SASRecConfig(width=WIDTH, layers=1, heads=2, max_length=LENGTH, dropout=0.3, attention_dropout=0.3)


def train_set(instances: Instances = "whole") -> TrainSet:
    seqs = Sequences.from_lists(LISTS)
    return TrainSet(seqs, torch.arange(len(LISTS)), N_ITEMS, instances=instances, max_length=LENGTH, windows=False)


def settings(**changes: Any) -> ECLSRConfig:
    """Gives the paper's settings without dropout in the generator, and a window that some histories do not fill."""
    calm = ECLSRConfig(generator_dropout=0.0, generator_attention_dropout=0.0, window=4)
    return dataclasses.replace(calm, **changes)


def method(config: ECLSRConfig, backbone: Any = CALM, instances: Instances = "whole") -> ECLSR:
    """Gives a method whose every weight is moved away from its initial value, in training mode."""
    torch.manual_seed(0)
    made = ECLSR(config, train_set(instances), backbone).train()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def whole_batch(one: ECLSR) -> Batch:
    return one.train_set.batch(torch.arange(len(one.train_set)))


def rng(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The discriminator


def test_the_discriminator_is_the_encoder_and_adds_a_head_alone() -> None:
    one = method(settings(condition="sum"))
    own = {name for name, _ in one.named_parameters() if not name.startswith(("encoder.", "generator."))}
    assert own == {"head.weight"}
    detection = one.loss(whole_batch(one), rng())["detection"]
    shared = [parameter for name, parameter in one.encoder.named_parameters()]
    gradients = torch.autograd.grad(detection, shared)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_the_gradient_of_detection_flows_through_the_condition() -> None:
    one = method(settings(first=True))
    batch = whole_batch(one)
    edited, _ = one.edited(batch, rng())
    assert edited is not None
    assert one.head is not None
    states = one.encoder.states(batch.history).detach().requires_grad_()
    torch.autograd.backward(one.detection(one.head, edited, states))
    assert states.grad is not None
    assert float(states.grad.abs().amax(1).min()) > 0


def test_a_causal_discriminator_does_not_judge_by_what_comes_after() -> None:
    for causal in (True, False):
        one = method(settings(causal=causal, condition="sum", first=True))
        batch = whole_batch(one)
        edited, _ = one.edited(batch, rng())
        assert edited is not None
        states = one.encoder.states(batch.history).detach()
        verdicts = []
        for shift in (0.0, 5.0):
            moved = states.clone()
            moved[batch.history.last[0]] += shift
            joint = one.encoder.items(edited.history.ids) + moved
            verdicts.append(one.encoder.contextualize(joint, edited.history, causal=causal)[0])
        assert torch.equal(verdicts[0], verdicts[1]) == causal
        assert one.detection(torch.nn.Linear(WIDTH, 1), edited, states).isfinite()


# The generator


def test_the_generator_shares_the_item_table_and_has_positions_of_its_own() -> None:
    one = method(settings())
    assert isinstance(one.generator, BERT4Rec)
    assert one.generator.items is one.encoder.items
    shared = {id(p) for p in one.generator.parameters()} & {id(p) for p in one.encoder.parameters()}
    assert shared == {id(one.encoder.items.weight)}


@pytest.mark.parametrize("fill", ["argmax", "sample"])
def test_what_is_generated_is_an_item_and_stands_where_something_was_masked(fill: str) -> None:
    one = method(settings(ratio=0.6, fill=fill))
    with torch.no_grad():
        one.encoder.items.weight[0] = 50.0
        one.encoder.items.weight[one.encoder.items.mask_id] = 50.0
    batch = whole_batch(one)
    edited, _ = one.edited(batch, rng())
    assert edited is not None
    chosen = one.choice(batch.history, rng())
    ids = edited.history.ids
    assert int(ids.min()) >= 1
    assert int(ids.max()) <= N_ITEMS
    assert torch.equal(ids[~chosen], batch.history.ids[~chosen])
    assert torch.equal(edited.changed, ids != batch.history.ids)


def fitted(config: ECLSRConfig, epochs: int) -> list[dict[str, Tensor]]:
    """Gives the parameters before training and after each epoch."""
    states: list[dict[str, Tensor]] = []
    one = method(config, ROUGH, "prefixes")

    def note(_: Any) -> dict[str, float]:
        states.append({name: p.detach().clone() for name, p in one.named_parameters()})
        return {"NDCG@20": float(len(states))}

    note(None)
    Trainer(one, TrainingConfig(epochs=epochs, batch_size=6, weight_decay=0.01), note).fit()
    return states


def moved(before: dict[str, Tensor], after: dict[str, Tensor], part: str) -> set[bool]:
    return {not torch.equal(before[name], after[name]) for name in before if name.startswith(part)}


def test_the_generator_is_trained_until_it_is_frozen_and_then_never_moves() -> None:
    states = fitted(settings(freeze_after=2), 4)
    own = "generator.blocks"
    assert moved(states[0], states[1], own) == {True}
    assert moved(states[1], states[2], own) == {True}
    assert moved(states[2], states[4], "generator.") == {False}
    assert moved(states[3], states[4], "encoder.blocks") == {True}
    assert moved(states[3], states[4], "encoder.items") == {True}


def test_a_generator_that_is_never_frozen_goes_on() -> None:
    states = fitted(settings(freeze_after=0), 3)
    assert moved(states[2], states[3], "generator.blocks") == {True}


def test_a_frozen_generator_still_edits_and_has_no_term() -> None:
    one = method(settings(freeze_after=1))
    batch = whole_batch(one)
    one.begin_epoch(1, rng())
    before = one.loss(batch, rng())
    one.begin_epoch(2, rng())
    after = one.loss(batch, rng())
    assert before.keys() - after.keys() == {"generation"}
    assert torch.equal(before["detection"], after["detection"])


def test_in_pretraining_the_generator_alone_is_trained() -> None:
    config = settings(detection=0.0, contrast_edited="positive", pretrain=1, freeze_after=1)
    states = fitted(config, 2)
    assert moved(states[0], states[1], "generator.blocks") == {True}
    assert moved(states[0], states[1], "encoder.blocks") == {False}
    assert moved(states[1], states[2], "generator.blocks") == {False}
    assert moved(states[1], states[2], "encoder.blocks") == {True}


@pytest.mark.parametrize("pretrain", [0, 1])
def test_a_run_that_is_stopped_in_an_epoch_and_resumed_ends_bit_identical(pretrain: int, tmp_path: Path) -> None:
    config = settings(freeze_after=1, pretrain=pretrain, fill="sample", mild="perturbation")
    training = TrainingConfig(epochs=3, batch_size=6, patience=None)

    rising = itertools.count()  # the last epoch is the best, whose weights a run ends with

    def trainer(folder: Path | None = None) -> Trainer:
        one = method(config, ROUGH, "prefixes")
        return Trainer(one, training, lambda _: {"NDCG@20": float(next(rising))}, folder=folder)

    whole = trainer()
    whole.fit()
    for _ in range(8):  # three batches an epoch: stops in the epoch before the freeze, and in one after it
        one = trainer(tmp_path)
        one.resume()
        one.interrupted = True
        with pytest.raises(Stopped):
            one.fit()
        if one.epoch == 3:
            break
    resumed = trainer(tmp_path)
    resumed.resume()
    resumed.fit()
    expected, found = whole.method.state_dict(), resumed.method.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


# Mild augmentation


def test_normalisation_gives_length_one_and_keeps_the_direction() -> None:
    one = method(settings(mild="normalisation"))
    users = torch.randn(5, WIDTH, generator=rng())
    mild = one.mildly(users, rng())
    assert torch.allclose(mild.norm(dim=1), torch.ones(5))
    assert torch.allclose(F.cosine_similarity(mild, users), torch.ones(5))


def test_a_perturbation_has_the_given_length_and_the_signs_of_the_vector() -> None:
    one = method(settings(mild="perturbation", noise=0.25))
    users = torch.randn(400, WIDTH, generator=rng())
    noise = one.mildly(users, rng()) - users
    assert torch.allclose(noise.norm(dim=1), torch.full((400,), 0.25), atol=1e-5)
    assert bool((noise.sign() * users.sign() >= 0).all())
    assert torch.equal(one.mildly(users, rng()) - users, noise)
    assert not torch.allclose(one.mildly(users, rng(1)), users + noise)
    # The share of a coordinate in the noise is uniform before the length is set.
    share = noise / users
    share = share / share.amax(1, keepdim=True)
    rest = share[share < 1]
    assert float(rest.mean()) == pytest.approx(0.5, abs=0.05)


def test_the_default_noise_hardly_turns_a_vector_as_long_as_the_encoders() -> None:
    one = method(settings(mild="perturbation"))
    users = 5 * F.normalize(torch.randn(400, WIDTH, generator=rng()), dim=1)
    mild = one.mildly(users, rng())
    assert float(F.cosine_similarity(mild, users).min()) > 0.999


def test_a_perturbation_passes_no_gradient_through_its_noise() -> None:
    one = method(settings(mild="perturbation"))
    users = torch.randn(3, WIDTH, generator=rng(), requires_grad=True)
    (gradient,) = torch.autograd.grad(one.mildly(users, rng()).sum(), users)
    assert torch.equal(gradient, torch.ones(3, WIDTH))


# What cannot be


def test_an_encoder_without_token_states_is_refused() -> None:
    bert = BERT4RecConfig(width=WIDTH, max_length=LENGTH)
    for backbone, name in ((CaserConfig(width=WIDTH), "Caser"), (bert, "BERT4Rec")):
        with pytest.raises(ValueError, match=f"{name} has no token states; use encoder 'sasrec' or 'gru4rec'"):
            ECLSR(settings(), train_set(), backbone)  # type: ignore[arg-type]


def test_a_recurrent_encoder_is_its_own_discriminator_too() -> None:
    one = method(settings(), GRU4RecConfig(width=WIDTH, max_length=LENGTH, dropout=0.0))
    assert one.loss(whole_batch(one), rng())["detection"].isfinite()


def test_a_discriminator_that_reads_both_ways_cannot_be_a_recurrent_encoder() -> None:
    recurrent = GRU4RecConfig(width=WIDTH, max_length=LENGTH, dropout=0.0)
    with pytest.raises(ValueError, match="GRU4Rec reads a history forwards only; use encoder 'sasrec', or causal True"):
        ECLSR(settings(causal=False), train_set(), recurrent)
    one = method(settings(causal=False, detection=0.0), recurrent)  # nothing is discriminated
    assert one.loss(whole_batch(one), rng())["invariance"].isfinite()


@pytest.mark.parametrize(
    "changes",
    [{"invasive": "deletion"}, {"generation": 0.0}, {"detection": 0.0}],
)
def test_pretraining_needs_a_generator_to_train(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="there is no generator to train"):
        ECLSR(settings(pretrain=2, **changes), train_set(), CALM)


def test_a_generator_is_not_frozen_before_it_is_pretrained() -> None:
    with pytest.raises(ValueError, match="pretrained for 5 epochs and frozen after fewer"):
        ECLSR(settings(pretrain=5, freeze_after=4), train_set(), CALM)
    ECLSR(settings(pretrain=5, freeze_after=0), train_set(), CALM)


def test_the_same_random_numbers_give_the_same_loss_and_the_data_is_not_written_to() -> None:
    one = method(settings(fill="sample", mild="perturbation"), ROUGH)
    batch, stored = whole_batch(one), one.train_set.sequences.ids.clone()
    losses = []
    for _ in range(2):
        torch.manual_seed(5)
        losses.append(one.loss(batch, rng()))
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])
    assert torch.equal(one.train_set.sequences.ids, stored)
    assert torch.equal(batch.history.ids, whole_batch(one).history.ids)
