from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from conseq.data.sequences import Sequences
from conseq.data.train_set import Batch, Instances, TrainSet
from conseq.encoders.sasrec import SASRecConfig
from conseq.methods.ecl_sr import ECLSR, ECLSRConfig, Invasive
from conseq.methods.next_item import NextItem, NextItemConfig
from conseq.nn.items import ItemTable

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

each_invasive = pytest.mark.parametrize("kind", INVASIVE)
both_instances = pytest.mark.parametrize("instances", ["prefixes", "whole"])


def train_set(instances: Instances = "whole") -> TrainSet:
    seqs = Sequences.from_lists(LISTS)
    return TrainSet(seqs, torch.arange(len(LISTS)), N_ITEMS, instances=instances, max_length=LENGTH, windows=False)


def settings(**changes: Any) -> ECLSRConfig:
    """Gives the paper's settings without dropout in the generator, and a window that some histories do not fill."""
    calm = ECLSRConfig(generator_dropout=0.0, generator_attention_dropout=0.0, window=4)
    return dataclasses.replace(calm, **changes)


def method(config: ECLSRConfig, backbone: Any = CALM, instances: Instances = "whole") -> ECLSR:
    """Gives a method in float64 whose every weight is moved away from its initial value, in training mode."""
    torch.manual_seed(0)
    made = ECLSR(config, train_set(instances), backbone).double().train()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def whole_batch(one: ECLSR) -> Batch:
    return one.train_set.batch(torch.arange(len(one.train_set)))


def rng(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def single(ids: list[int]) -> Sequences:
    return Sequences.from_lists([ids])


def cosine(a: Tensor, b: Tensor) -> Tensor:
    found: Tensor = (a @ b) / (a.norm() * b.norm())
    return found


# The loss, term by term, as the paper's sums


class Twin:
    """Eqs. 1, 12-16 for one batch, one history and one position at a time."""

    def __init__(self, one: ECLSR, batch: Batch) -> None:
        self.one, self.config, self.batch = one, one.config, batch
        self.histories = batch.history.to_lists()
        self.states = [one.encoder.states(single(ids)) for ids in self.histories]
        assert one.generator is not None
        self.generator = one.generator
        flags = one.choice(batch.history, rng())
        chosen = torch.split(flags, batch.history.lengths.tolist())
        self.masked = [row.nonzero()[:, 0].tolist() for row in chosen]
        self.edited = [self.fill(ids, at) for ids, at in zip(self.histories, self.masked, strict=True)]

    def logits(self, states: Tensor) -> Tensor:
        return states @ self.one.encoder.items.candidates.T

    def generated(self, ids: list[int], at: list[int]) -> Tensor:
        masked = [self.one.encoder.items.mask_id if t in at else item for t, item in enumerate(ids)]
        return self.generator.states(single(masked))

    def fill(self, ids: list[int], at: list[int]) -> list[int]:
        found = (self.logits(self.generated(ids, at)).argmax(1) + 1).tolist()
        return [found[t] if t in at else item for t, item in enumerate(ids)]

    def next_item(self) -> Tensor:
        total, n = torch.zeros(()), 0
        offsets = self.batch.history.offsets.tolist()
        for place, target in zip(self.batch.at.tolist(), self.batch.next_ids.tolist(), strict=True):
            row = max(i for i, offset in enumerate(offsets[:-1]) if offset <= place)
            total = total - self.logits(self.states[row][place - offsets[row]]).log_softmax(0)[target - 1]
            n += 1
        return total / n

    def pooled(self) -> list[Tensor]:
        k = self.config.window
        return [torch.stack(list(h)[-k:]).mean(0) for h in self.states]

    def invariance(self) -> Tensor:
        # Without dropout the positive is the history's own vector.
        users, tau, total = self.pooled(), self.config.temperature, torch.zeros(())
        owners = self.batch.users.tolist()
        for i, h in enumerate(users):
            positive = torch.exp(cosine(h, h) / tau)
            others = [j for j in range(len(users)) if j != i and (self.config.same_user or owners[j] != owners[i])]
            negative = sum((torch.exp(cosine(h, users[j]) / tau) for j in others), torch.zeros(()))
            total = total - torch.log(positive / (positive + negative))
        return total / len(users)

    def generation(self) -> Tensor:
        losses = []
        for ids, at in zip(self.histories, self.masked, strict=True):
            if at:
                log_p = self.logits(self.generated(ids, at)).log_softmax(1)
                losses.append(-torch.stack([log_p[t, ids[t] - 1] for t in at]))
        if not self.config.per_history:
            return torch.cat(losses).mean()
        return torch.stack([row.sum() / len(row) for row in losses]).mean()

    def detection(self) -> Tensor:
        one, losses = self.one, []
        assert one.head is not None
        for ids, new, h in zip(self.histories, self.edited, self.states, strict=True):
            items = one.encoder.items.weight[torch.tensor(new)]
            joint = items + h if one.join is None else torch.cat([items, h], 1) @ one.join.weight.T
            read = one.encoder.contextualize(joint, single(new), causal=self.config.causal)
            for t in range(0 if self.config.first or self.config.judge_first else 1, len(ids)):
                p = torch.sigmoid(one.head.weight[0] @ read[t])
                losses.append(-torch.log(1 - p) if new[t] == ids[t] else -torch.log(p))
        return torch.stack(losses).mean()

    def terms(self) -> dict[str, Tensor]:
        config = self.config
        return {
            "next_item": self.next_item(),
            "invariance": config.invariance * self.invariance(),
            "generation": config.generation * self.generation(),
            "detection": config.detection * self.detection(),
        }


@pytest.mark.parametrize(
    "config",
    [
        settings(),
        settings(temperature=0.7, same_user=True, ratio=0.6),
        settings(condition="sum", first=True, draw="chance", causal=False),
        settings(condition="sum", judge_first=True, per_history=False),
    ],
    ids=["paper", "other values", "bidirectional", "released"],
)
@both_instances
def test_the_loss_is_the_papers_sum_term_by_term(config: ECLSRConfig, instances: Instances) -> None:
    one = method(config, instances=instances)
    batch = whole_batch(one)
    ours, theirs = one.loss(batch, rng()), Twin(one, batch).terms()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert float(ours[name].detach()) == pytest.approx(float(value.detach()), rel=1e-9), name
    parameters = list(one.parameters())
    gradients = [torch.autograd.grad(sum(terms.values(), torch.zeros(())), parameters) for terms in (ours, theirs)]
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, atol=1e-10)


def test_the_papers_negatives_are_the_first_view_and_the_codes_the_second() -> None:
    """With two masks the two differ; both sums are written out from the pooled states that the method contrasts."""
    for view in ("first", "second"):
        one = method(settings(negative_view=view, temperature=0.5, detection=0.0), ROUGH)
        batch = whole_batch(one)
        torch.manual_seed(1)
        ours = one.loss(batch, rng())["invariance"]
        torch.manual_seed(1)
        first, second = one.encode([batch.history, batch.history])
        a, b = ([rows[-4:].mean(0) for rows in torch.split(h, batch.history.lengths.tolist())] for h in (first, second))
        negatives = a if view == "first" else b
        total = torch.zeros(())
        for i in range(len(a)):
            positive = torch.exp(cosine(a[i], b[i]) / 0.5)
            rest = [torch.exp(cosine(a[i], negatives[j]) / 0.5) for j in range(len(a)) if j != i]
            total = total - torch.log(positive / (positive + torch.stack(rest).sum()))
        assert not torch.allclose(first, second)
        assert float(ours.detach()) == pytest.approx(0.3 * float(total.detach()) / len(a), rel=1e-9)


@pytest.mark.parametrize("mild", ["normalisation", "perturbation"])
def test_without_the_second_mask_the_positive_is_the_changed_vector(mild: str) -> None:
    one = method(settings(mild=mild, temperature=0.5))
    batch = whole_batch(one)
    ours = one.loss(batch, rng())["invariance"]
    draws = rng()
    one.edited(batch, draws)
    users = torch.stack(Twin(one, batch).pooled())
    positives = one.mildly(users, draws)
    total = torch.zeros(())
    for i in range(len(users)):
        positive = torch.exp(cosine(users[i], positives[i]) / 0.5)
        rest = [torch.exp(cosine(users[i], users[j]) / 0.5) for j in range(len(users)) if j != i]
        total = total - torch.log(positive / (positive + torch.stack(rest).sum()))
    assert float(ours.detach()) == pytest.approx(0.3 * float(total.detach()) / len(users), rel=1e-9)


# Variants


def terms_of(config: ECLSRConfig, instances: Instances = "whole") -> set[str]:
    one = method(config, instances=instances)
    return set(one.loss(whole_batch(one), rng()))


def test_a_variant_leaves_out_its_terms_and_their_parameters() -> None:
    assert terms_of(settings()) == {"next_item", "invariance", "generation", "detection"}
    assert terms_of(settings(invariance=0.0)) == {"next_item", "generation", "detection"}  # RIDL-SR
    assert terms_of(settings(detection=0.0)) == {"next_item", "invariance"}  # ICL-SR
    assert terms_of(settings(generation=0.0)) == {"next_item", "invariance", "detection"}
    icl = method(settings(detection=0.0))
    assert icl.generator is None
    assert icl.head is None
    assert {name.split(".")[0] for name, _ in icl.named_parameters()} == {"encoder"}


@both_instances
def test_without_both_terms_it_is_the_next_item_alone(instances: Instances) -> None:
    one = method(settings(invariance=0.0, detection=0.0), instances=instances)
    plain = NextItem(NextItemConfig(), one.train_set, CALM).double()
    plain.encoder.load_state_dict(one.encoder.state_dict())
    batch = whole_batch(one)
    ours, theirs = one.loss(batch, rng()), plain.loss(batch, rng())
    assert ours.keys() == {"next_item"}
    assert torch.allclose(ours["next_item"], theirs["next_item"], atol=1e-12)


@each_invasive
def test_the_term_of_every_invasive_augmentation_is_the_mean_over_its_judged_tokens(kind: Invasive) -> None:
    one = method(settings(invasive=kind, condition="sum", ratio=0.4))
    batch = whole_batch(one)
    terms = one.loss(batch, rng())
    assert ("generation" in terms) == (kind == "masked_substitution") == (one.generator is not None)
    edited, _ = one.edited(batch, rng())
    assert edited is not None
    assert one.head is not None
    states = one.encoder.states(batch.history)
    losses, offsets = [], edited.history.offsets.tolist()
    for row, new in enumerate(edited.history.to_lists()):
        own = slice(offsets[row], offsets[row + 1])
        joint = one.encoder.items.weight[torch.tensor(new)] + states[edited.source[own]]
        z = one.encoder.contextualize(joint, single(new)) @ one.head.weight[0]
        for t in range(len(new)):
            if edited.judged[own][t]:
                losses.append(-F.logsigmoid(z[t] if edited.changed[own][t] else -z[t]))
    expected = 0.1 * torch.stack(losses).mean()
    assert float(terms["detection"].detach()) == pytest.approx(float(expected.detach()), rel=1e-9)


def test_an_insertion_into_a_full_history_keeps_its_most_recent_tokens() -> None:
    one = method(settings(invasive="insertion", ratio=1.0))
    batch = whole_batch(one)
    edited, _ = one.edited(batch, rng())
    assert edited is not None
    assert edited.history.max_length == LENGTH
    assert one.loss(batch, rng())["detection"].isfinite()


@pytest.mark.parametrize("view", ["first", "second"])
def test_edited_histories_as_negatives_stand_in_the_denominator(view: str) -> None:
    one = method(settings(detection=0.0, contrast_edited="negative", temperature=0.5, negative_view=view))
    batch = whole_batch(one)
    terms = one.loss(batch, rng())
    assert terms.keys() == {"next_item", "invariance", "generation"}
    twin = Twin(one, batch)
    users = twin.pooled()
    edited = [one.encoder.states(single(ids))[-4:].mean(0) for ids in twin.edited]
    total = torch.zeros(())
    for i in range(len(users)):
        positive = math.e ** (1 / 0.5)
        rest = [torch.exp(cosine(users[i], users[j]) / 0.5) for j in range(len(users)) if j != i]
        rest += [torch.exp(cosine(users[i], other) / 0.5) for other in edited]
        total = total - torch.log(positive / (positive + torch.stack(rest).sum()))
    assert float(terms["invariance"].detach()) == pytest.approx(0.3 * float(total.detach()) / len(users), rel=1e-9)


def test_edited_histories_as_positives_have_a_contrast_of_their_own() -> None:
    one = method(settings(detection=0.0, contrast_edited="positive", temperature=0.5))
    batch = whole_batch(one)
    terms = one.loss(batch, rng())
    twin = Twin(one, batch)
    users = twin.pooled()
    edited = [one.encoder.states(single(ids))[-4:].mean(0) for ids in twin.edited]
    total = torch.zeros(())
    for i in range(len(users)):
        rest = torch.stack([torch.exp(cosine(users[i], users[j]) / 0.5) for j in range(len(users)) if j != i]).sum()
        for like in (users[i], edited[i]):
            positive = torch.exp(cosine(users[i], like) / 0.5)
            total = total - torch.log(positive / (positive + rest))
    expected = 0.3 * float(total.detach()) / (2 * len(users))
    assert float(terms["invariance"].detach()) == pytest.approx(expected, rel=1e-9)


def test_the_settings_of_the_code_differ_from_the_papers_in_the_term_that_they_name() -> None:
    paper = method(settings())
    batch = whole_batch(paper)
    assert len(set(batch.history.lengths.tolist())) > 1
    expected = paper.loss(batch, rng())
    for change, term in (({"judge_first": True}, "detection"), ({"per_history": False}, "generation")):
        found = method(settings(**change)).loss(batch, rng())
        assert {name for name in found if not torch.equal(found[name], expected[name])} == {term}


def test_a_diluted_next_item_term_counts_every_slot() -> None:
    plain, diluted = (method(settings(diluted=flag)) for flag in (False, True))
    batch = whole_batch(plain)
    terms = [one.loss(batch, rng())["next_item"] for one in (plain, diluted)]
    share = len(batch.next_ids) / (len(batch) * LENGTH)
    assert float(terms[1].detach()) == pytest.approx(share * float(terms[0].detach()), rel=1e-9)
    prefixes = method(settings(diluted=True), instances="prefixes")
    batch = whole_batch(prefixes)
    same = method(settings(), instances="prefixes")
    assert torch.equal(prefixes.loss(batch, rng())["next_item"], same.loss(batch, rng())["next_item"])


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "sampled_softmax", "gbce"])
def test_other_next_item_losses_can_be_chosen(loss: str) -> None:
    one = method(settings(loss=loss, negatives=3))
    assert one.loss(whole_batch(one), rng())["next_item"].isfinite()
    assert one.prediction.count == 3


def test_a_batch_with_nothing_to_edit_is_finite() -> None:
    seqs = Sequences.from_lists([[1, 2], [3, 4], [5, 6]])
    train = TrainSet(seqs, torch.arange(3), N_ITEMS, instances="prefixes", max_length=LENGTH)
    for kind in INVASIVE:
        one = ECLSR(settings(invasive=kind), train, CALM).double().train()
        terms = one.loss(train.batch(torch.arange(3)), rng())
        total = torch.stack(list(terms.values())).sum()
        assert total.isfinite()
        torch.autograd.backward(total)


def test_the_encoder_is_judged_alone_and_reads_forwards() -> None:
    """The generator, the head and the condition leave nothing behind in what is served."""
    one = method(settings())
    names = set(one.encoder.state_dict())
    assert names == set(CALM(ItemTable(N_ITEMS, WIDTH)).state_dict())
