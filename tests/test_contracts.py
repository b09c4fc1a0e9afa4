"""What every method and every encoder owes, whatever paper it comes from: one table, one row each."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences, concatenate
from conseq.data.train_set import Instances, TrainSet
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.attentive import AttentiveConfig
from conseq.encoders.bert4rec import BERT4RecConfig
from conseq.encoders.caser import CaserConfig
from conseq.encoders.comirec import ComiRecConfig as ComiRecEncoder
from conseq.encoders.encoder import Encoder, TokenEncoder
from conseq.encoders.gcsan import GCSANConfig
from conseq.encoders.gru4rec import GRU4RecConfig
from conseq.encoders.matrix_factorization import MatrixFactorizationConfig
from conseq.encoders.sasrec import SASRecConfig
from conseq.encoders.srma import SRMAConfig as SRMAEncoder
from conseq.methods.bpr import BPR, BPRConfig
from conseq.methods.cl4srec import CL4SRec, CL4SRecConfig
from conseq.methods.cloze import Cloze, ClozeConfig
from conseq.methods.comirec import ComiRec, ComiRecConfig
from conseq.methods.coserec import CoSeRec, CoSeRecConfig
from conseq.methods.dssrec import DSSRec, DSSRecConfig
from conseq.methods.duorec import DuoRec, DuoRecConfig
from conseq.methods.ec4srec import EC4SRec, EC4SRecConfig
from conseq.methods.ecl_sr import ECLSR, ECLSRConfig
from conseq.methods.elecrec import ELECRec, ELECRecConfig
from conseq.methods.iclrec import ICLRec, ICLRecConfig
from conseq.methods.mclrec import MCLRec, MCLRecConfig
from conseq.methods.mclsr import MCLSR, MCLSRConfig
from conseq.methods.method import Method
from conseq.methods.next_item import NextItem, NextItemConfig
from conseq.methods.prediction import Loss
from conseq.methods.s3rec import S3Rec, S3RecConfig
from conseq.methods.srma import SRMA, SRMAConfig
from conseq.methods.view_contrast import ViewContrast, ViewContrastConfig
from conseq.nn.items import ItemTable
from conseq.training.config import TrainingConfig
from conseq.training.trainer import Stopped, Trainer, evaluating

N_ITEMS = 12
LENGTH = 8

ENCODERS: dict[str, Callable[[ItemTable], Encoder]] = {
    "sasrec-bert": SASRecConfig(width=16, layers=2, heads=2, max_length=LENGTH, dropout=0.1, attention_dropout=0.1),
    "sasrec-kang": SASRecConfig(
        width=16, layers=2, heads=1, max_length=LENGTH, block="kang", positions="end", dropout=0.1
    ),
    "gru4rec": GRU4RecConfig(width=16, max_length=LENGTH, dropout=0.1),
    "caser": CaserConfig(width=16, dropout=0.1),
    "attentive": AttentiveConfig(width=16, max_length=LENGTH),
    "bert4rec": BERT4RecConfig(width=16, layers=1, heads=2, max_length=LENGTH, dropout=0.1),
    "gcsan": GCSANConfig(width=16, layers=1, heads=2, max_length=LENGTH, dropout=0.1, attention_dropout=0.1),
    "comirec": ComiRecEncoder(width=16, interests=1, max_length=LENGTH),
    "srma": SRMAEncoder(width=16, layers=1, heads=2, max_length=LENGTH, dropout=0.1, attention_dropout=0.1),
    "matrix_factorization": MatrixFactorizationConfig(width=16, max_length=LENGTH),
}

TOKEN_ENCODERS = ["sasrec-bert", "sasrec-kang", "gru4rec", "srma"]
# Attentive pooling, with one interest, and SASRec; what else they are, their own methods alone train.
OF_THEIR_METHODS = ["comirec", "srma"]
# To these 1, 2 is the same history as 2, 1.
BLIND_TO_ORDER = ["matrix_factorization"]


@dataclass(frozen=True)
class Row:
    """A method as the contracts meet it: its settings, and the groups that its updates move."""

    make: type[Method[Any]]
    config: Any
    groups: tuple[str, ...]
    needs_states: bool = False
    needs_prefixes: bool = False
    epochs: int = 20  # in which it learns a certain log
    only: tuple[str, ...] = ()  # the encoders that it can train, where those are few
    ranks: bool = True  # whether anything in it trains the scores that items are ranked by

    @property
    def backbones(self) -> tuple[str, ...]:
        could = TOKEN_ENCODERS if self.needs_states else ENCODERS
        return self.only or tuple(name for name in could if name not in OF_THEIR_METHODS)


NEXT_ITEM_LOSSES: tuple[Loss, ...] = ("cross_entropy", "binary_cross_entropy", "sampled_softmax", "gbce")

ALL_BEGUN = 3  # the epoch by which every method of the table does all that it does

CATEGORIES = Path("categories.csv")  # where `items_beside_the_log` puts it

RELEASED_ICLREC = ICLRecConfig(
    clusters=(4,),
    mitigation=False,
    restarts=5,
    warm_start=True,
    assignment="batch",
    normalise="centroids",
    against="all",
    directions="mean",
)

RELEASED_MCLREC = MCLRecConfig(
    scale_margin=False, margin_pairs="all", margin_bounds="anchor", normalise=True, directions="mean", encoder_steps=2
)

RELEASED_EC4SREC = EC4SRecConfig(
    negative_views=0.05,
    supervised=0.0,
    contrast=0.0,
    same_target=0.0,
    negative_temperature=0.1,
    unimportant=0.7,
    negative_operators=("crop", "mask", "reorder"),
    differenced="top_logit",
    signed=True,
    update_epochs=(1, 2),
    style="released",
    both_ways=True,
    crowd=True,
)

OTHER_ECL_SR = ECLSRConfig(
    freeze_after=1,
    condition="sum",
    draw="chance",
    first=True,
    fill="sample",
    mild="perturbation",
    negative_view="second",
    same_user=True,
)

S3REC = S3RecConfig(loss="cross_entropy", pretrain=1, pretrain_batch=200)
BOTH_WAYS = ("sasrec-bert", "sasrec-kang")

METHODS = {
    "comirec": Row(ComiRec, ComiRecConfig(negatives=32), ("all",), needs_prefixes=True, only=("comirec",)),
    "comirec-cross-entropy": Row(
        ComiRec, ComiRecConfig(loss="cross_entropy"), ("all",), needs_prefixes=True, only=("comirec",)
    ),
    "bpr": Row(BPR, BPRConfig(), ("all",), only=("matrix_factorization",)),
    "bpr-regularized": Row(BPR, BPRConfig(negatives=3, regularization=1e-4), ("all",), only=("matrix_factorization",)),
    **{
        f"next_item-{loss}": Row(NextItem, NextItemConfig(loss=loss, negatives=4), ("all",))
        for loss in NEXT_ITEM_LOSSES
    },
    "cl4srec": Row(CL4SRec, CL4SRecConfig(negatives=4), ("all",)),
    "cloze": Row(Cloze, ClozeConfig(mask=0.3), ("all",), only=("bert4rec",), epochs=40),
    "cloze-chance": Row(Cloze, ClozeConfig(draw="chance", last=0.5), ("all",), only=("bert4rec",), epochs=40),
    "coserec": Row(CoSeRec, CoSeRecConfig(vectors_from=1, negatives=4), ("all",), needs_states=True),
    "dssrec": Row(DSSRec, DSSRecConfig(pretrain=1), ("pretraining",), needs_states=True),
    "ec4srec": Row(EC4SRec, EC4SRecConfig(update_epochs=(1,), unimportant=0.3), ("all",)),
    # Its masks are zeros, from which nothing is learned: it takes longer.
    "ec4srec-released": Row(EC4SRec, RELEASED_EC4SREC, ("all",), epochs=40),
    "ec4srec-before": Row(EC4SRec, EC4SRecConfig(update_epochs=(99,)), ("all",)),
    "ecl_sr": Row(ECLSR, ECLSRConfig(freeze_after=1), ("all",), needs_states=True),
    "ecl_sr-sum": Row(ECLSR, OTHER_ECL_SR, ("all",), needs_states=True),
    "ecl_sr-deletion": Row(ECLSR, ECLSRConfig(invasive="deletion", mild="normalisation"), ("all",), needs_states=True),
    "elecrec": Row(ELECRec, ELECRecConfig(), ("all",), needs_states=True),
    # Its discriminator learns verdicts, and no inner product with item vectors.
    "elecrec-embeddings": Row(ELECRec, ELECRecConfig(share="embeddings"), ("all",), needs_states=True, ranks=False),
    "iclrec": Row(ICLRec, ICLRecConfig(clusters=(4,), negatives=4), ("all",), needs_states=True),
    "iclrec-released": Row(ICLRec, RELEASED_ICLREC, ("all",), needs_states=True),
    "iclrec-positions": Row(ICLRec, ICLRecConfig(clusters=(4,), represent="positions"), ("all",), needs_states=True),
    "iclrec-a": Row(ICLRec, ICLRecConfig(categories=CATEGORIES), ("all",), needs_states=True),
    "cl4srec-ce": Row(CL4SRec, CL4SRecConfig(loss="cross_entropy"), ("all",)),
    "cl4srec-removing": Row(CL4SRec, CL4SRecConfig(remove_same_user=True), ("all",)),
    "duorec": Row(DuoRec, DuoRecConfig(), ("all",)),
    "duorec-both": Row(DuoRec, DuoRecConfig(pairs="both"), ("all",)),
    "duorec-removing": Row(DuoRec, DuoRecConfig(pairs="both", remove_same_target=True), ("all",)),
    "duorec-supervised": Row(DuoRec, DuoRecConfig(pairs="supervised"), ("all",)),
    "duorec-unsupervised": Row(DuoRec, DuoRecConfig(pairs="unsupervised"), ("all",)),
    "mclrec": Row(MCLRec, MCLRecConfig(), ("encoder", "augmenters"), epochs=60),
    "mclrec-released": Row(MCLRec, RELEASED_MCLREC, ("encoder", "augmenters", "encoder")),
    "s3rec": Row(S3Rec, S3REC, ("pretraining",), needs_states=True, only=BOTH_WAYS),
    "s3rec-attributes": Row(
        S3Rec, replace(S3REC, attributes=CATEGORIES), ("pretraining",), needs_states=True, only=BOTH_WAYS
    ),
    "s3rec-described": Row(
        S3Rec,
        replace(S3REC, attributes=CATEGORIES, describe="item", segment=0.0),
        ("pretraining",),
        needs_states=True,
        only=BOTH_WAYS,
    ),
    "s3rec-no-pretraining": Row(S3Rec, S3RecConfig(pretrain=0), ("next",), needs_states=True),
    "srma": Row(SRMA, SRMAConfig(negatives=4), ("all",), only=("srma",)),
    "srma-complement": Row(SRMA, SRMAConfig(complement=1), ("complement",), only=("srma",)),
    "view_contrast": Row(ViewContrast, ViewContrastConfig(mild="dropout"), ("all",)),
    "view_contrast-edits": Row(
        ViewContrast,
        ViewContrastConfig(
            operators=("substitute", "delete"), mild="perturbation", similarity="cosine", temperature=0.5
        ),
        ("all",),
    ),
    "view_contrast-mild": Row(
        ViewContrast, ViewContrastConfig(operators=(), mild="normalisation", remove_same_user=True), ("all",)
    ),
    "mclsr": Row(MCLSR, MCLSRConfig(negatives=8, neighbours=5), ("all",), needs_prefixes=True),
}

HISTORIES = Sequences.from_lists([[1, 2, 3], [4], list(range(1, 13)), [5, 6], [7, 8, 9, 10, 11, 12, 1, 2]])


def encoder(name: str) -> Encoder:
    torch.manual_seed(0)
    table = ItemTable(N_ITEMS, 16, std=0.5)
    return ENCODERS[name](table).eval()


@pytest.fixture(scope="module", autouse=True)
def items_beside_the_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A table of categories in the working folder; the last item is in none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("log"))
        rows = [f"{item},{'odd' if item % 2 else 'even'}" for item in range(1, N_ITEMS)]
        CATEGORIES.write_text("\n".join(["item_id,categories", *rows]))
        yield


def train_set(lists: list[list[int]], instances: Instances) -> TrainSet:
    return TrainSet(
        Sequences.from_lists(lists),
        torch.arange(len(lists)),
        N_ITEMS,
        instances=instances,
        max_length=LENGTH,
        item_ids=Vocabulary([str(item) for item in range(1, N_ITEMS + 1)], start=1),
    )


def cycle(instances: Instances) -> TrainSet:
    """A log whose next item is certain: i is followed by i + 1, the last by the first."""
    return train_set([[(user + step) % N_ITEMS + 1 for step in range(3 + user % 3)] for user in range(180)], instances)


def method(row: Row, backbone: str, instances: Instances = "prefixes") -> Method[Any]:
    torch.manual_seed(0)
    return row.make(row.config, cycle(instances), ENCODERS[backbone])  # type: ignore[arg-type,call-arg]


def begun(one: Method[Any]) -> Method[Any]:
    """Gives a method as it stands in the middle of an epoch."""
    with evaluating(one):
        one.begin_epoch(1, torch.Generator().manual_seed(0))
    return one.train()


def no_validation(encoder: Encoder) -> dict[str, float]:
    return {"NDCG@20": 0.0}


def always_better() -> Callable[[Encoder], dict[str, float]]:
    """A validation that picks the last epoch."""
    values = itertools.count()
    return lambda encoder: {"NDCG@20": float(next(values))}


def state(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: one.detach().clone() for name, one in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


PAIRS = [(name, backbone) for name, row in METHODS.items() for backbone in row.backbones]
pairs = pytest.mark.parametrize(("name", "backbone"), PAIRS)


def _with_two_encoders() -> list[tuple[str, str]]:
    """Each method with its first encoder, and with that of its others which the methods before it have least."""
    had: Counter[str] = Counter()
    found = []
    for name, row in METHODS.items():
        first, *others = row.backbones
        for backbone in [first, *sorted(others, key=lambda one: had[one])[:1]]:
            had[backbone] += 1
            found.append((name, backbone))
    return found


# What takes long is asked of these alone: it hangs on the method, and on the encoder, but not on every pair of them.
WITH_TWO = _with_two_encoders()
two_each = pytest.mark.parametrize(("name", "backbone"), WITH_TWO)

# Whole histories ask every token encoder for the same, and the others for what they do not have: one will do.
INSTANCES: list[tuple[str, str, Instances]] = [
    *((name, backbone, "prefixes") for name, backbone in PAIRS),
    *((name, row.backbones[0], "whole") for name, row in METHODS.items() if not row.needs_prefixes),
]


@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.needs_states])
@pytest.mark.parametrize("backbone", [name for name in ENCODERS if name not in TOKEN_ENCODERS])
def test_a_method_that_needs_states_refuses_an_encoder_that_has_none_or_reads_both_ways(
    name: str, backbone: str
) -> None:
    with pytest.raises(ValueError, match="has no token states; use encoder 'sasrec' or 'gru4rec'"):
        method(METHODS[name], backbone)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_history_is_encoded_alike_whatever_shares_its_batch(name: str) -> None:
    one = encoder(name)
    together = one(HISTORIES)
    for row in range(len(HISTORIES)):
        alone = one(HISTORIES.select(torch.tensor([row])))
        assert torch.allclose(together[row], alone[0], atol=1e-5)
    twice = one(concatenate([HISTORIES, HISTORIES]))
    assert torch.allclose(twice[len(HISTORIES) :], together, atol=1e-5)


@pytest.mark.parametrize("name", TOKEN_ENCODERS)
def test_a_state_does_not_see_what_comes_after_it(name: str) -> None:
    one = encoder(name)
    assert isinstance(one, TokenEncoder)
    seqs = HISTORIES.tail(LENGTH)
    changed = seqs.ids.clone()
    changed[seqs.last] = changed[seqs.last] % N_ITEMS + 1
    before, after = one.states(seqs), one.states(seqs.replace(changed))
    earlier = torch.ones(len(changed), dtype=torch.bool)
    earlier[seqs.last] = False
    assert torch.equal(before[earlier], after[earlier])
    assert not torch.allclose(before[seqs.last], after[seqs.last])


@pytest.mark.parametrize("name", TOKEN_ENCODERS)
def test_a_user_vector_is_the_last_state_of_the_items_that_are_read(name: str) -> None:
    one = encoder(name)
    assert isinstance(one, TokenEncoder)
    read = HISTORIES.tail(LENGTH)
    assert torch.allclose(one(HISTORIES), one.states(read)[read.last], atol=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_scores_are_inner_products_with_the_items_alone(name: str) -> None:
    one = encoder(name)
    scores = one.scores(torch.full((len(HISTORIES),), -1), HISTORIES)
    assert scores.shape == (len(HISTORIES), N_ITEMS)
    expected = one(HISTORIES) @ one.items.weight[1 : N_ITEMS + 1].T
    assert torch.allclose(scores, expected, atol=1e-6)


def test_every_encoder_is_among_those_of_what_takes_long() -> None:
    had = Counter(backbone for _, backbone in WITH_TWO)
    assert all(had[name] >= (2 if name in OF_THEIR_METHODS else 4) for name in ENCODERS), had


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backbone"), [one for one in WITH_TWO if METHODS[one[0]].ranks])
def test_a_method_learns_the_log_whose_next_item_is_certain(name: str, backbone: str) -> None:
    one = method(METHODS[name], backbone)
    training = TrainingConfig(epochs=METHODS[name].epochs, batch_size=64, learning_rate=1e-2, patience=None)
    epochs = itertools.count(1)

    def until_learned(encoder: Encoder) -> dict[str, float]:
        if next(epochs) > ALL_BEGUN and share_of_next_items_found(encoder, backbone) >= 0.9:
            raise Learned
        return {"NDCG@20": 0.0}

    with pytest.raises(Learned):
        Trainer(one, training, until_learned).fit()


class Learned(Exception):  # noqa: N818  (it is what the test wants)
    """The training has reached what a test asks for."""


def share_of_next_items_found(encoder: Encoder, backbone: str) -> float:
    """Gives the share of the log's pairs of items after which the next item of the cycle has the highest score."""
    histories = Sequences.from_lists([[i + 1, (i + 1) % N_ITEMS + 1] for i in range(N_ITEMS)])
    with torch.no_grad():
        scores = encoder.scores(torch.full((N_ITEMS,), -1), histories)
    # Losses over sampled items never push a user's own items down: those negatives are outside the history.
    scores[histories.rows, histories.ids - 1] = -math.inf
    found = scores.argmax(1) + 1 == (torch.arange(N_ITEMS) + 2) % N_ITEMS + 1
    if backbone in BLIND_TO_ORDER:  # what came before is as near as what comes next
        found |= scores.argmax(1) + 1 == (torch.arange(N_ITEMS) - 1) % N_ITEMS + 1
    return float(found.float().mean())


@two_each
def test_a_stopped_and_resumed_run_ends_bit_identical(name: str, backbone: str, tmp_path: Any) -> None:
    config = TrainingConfig(epochs=2, batch_size=100, patience=None)
    whole = Trainer(method(METHODS[name], backbone), config, always_better())
    whole.fit()
    stopped = Trainer(method(METHODS[name], backbone), config, always_better(), folder=tmp_path)
    stopped.interrupted = True
    with pytest.raises(Stopped):
        stopped.fit()
    torch.manual_seed(77)
    resumed = Trainer(method(METHODS[name], backbone), config, always_better(), folder=tmp_path)
    resumed.resume()
    resumed.fit()
    assert same(state(whole.method), state(resumed.method))


@pairs
def test_an_update_moves_its_group_only_and_no_view_writes_into_the_data(name: str, backbone: str) -> None:
    one = begun(method(METHODS[name], backbone))
    trainer = Trainer(one, TrainingConfig(batch_size=64), no_validation)
    data = one.train_set.sequences.ids.clone()
    batch = one.train_set.batch(torch.arange(30))
    history = batch.history.ids.clone()
    groups = []
    for group, terms in one.updates(batch, trainer.rng):
        before = state(one)
        assert all(term.requires_grad for term in terms.values()), terms
        trainer._step(group, terms)
        own = {id(parameter) for parameter in one.groups()[group].parameters()}
        for parameter_name, parameter in one.named_parameters():
            if id(parameter) not in own:
                assert torch.equal(parameter, before[parameter_name]), parameter_name
        groups.append(group)
    assert tuple(groups) == METHODS[name].groups
    assert torch.equal(one.train_set.sequences.ids, data)
    assert torch.equal(batch.history.ids, history)


AWKWARD = {
    "shortest histories": [[1, 2], [3, 4], [5, 6]],
    "one target for all": [[1, 2, 9], [3, 4, 9], [5, 6, 9]],
    "one user many times": [[1, 2, 3, 4, 5, 6, 7] * 3],  # three windows of a whole history
    "two examples": [[1, 2], [3, 4]],
}


@pytest.mark.parametrize("case", AWKWARD)
@pytest.mark.parametrize(("name", "backbone", "instances"), INSTANCES)
def test_the_loss_of_an_awkward_batch_is_finite(name: str, backbone: str, instances: Instances, case: str) -> None:
    row, train = METHODS[name], train_set(AWKWARD[case], instances)
    torch.manual_seed(0)
    one = begun(row.make(row.config, train, ENCODERS[backbone]))  # type: ignore[arg-type,call-arg]
    rng = torch.Generator().manual_seed(0)
    for _, terms in one.updates(train.batch(torch.arange(len(train))), rng):
        total = torch.stack(list(terms.values())).sum()
        assert torch.isfinite(total)
        torch.autograd.backward(total)
    assert all(torch.isfinite(p.grad).all() for p in one.parameters() if p.grad is not None)


def test_one_pass_over_a_history_gives_the_gradient_of_its_prefixes() -> None:
    """Without dropout, `whole` asks for the same next items from the same states as `prefixes` does."""
    calm = SASRecConfig(width=16, layers=2, heads=2, max_length=LENGTH, dropout=0.0, attention_dropout=0.0)
    gradients = []
    ways: tuple[Instances, ...] = ("prefixes", "whole")
    for instances in ways:
        train = cycle(instances)
        torch.manual_seed(0)
        one = NextItem(NextItemConfig(), train, calm)
        batch = train.batch(torch.arange(len(train)))
        torch.autograd.backward(one.loss(batch, torch.Generator())["next_item"])
        gradients.append(torch.cat([p.grad.flatten() for p in one.parameters() if p.grad is not None]))
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)
