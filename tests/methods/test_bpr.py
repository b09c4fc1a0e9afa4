"""BPR: which pairs it is made of, its terms against a slow reading of them, and what becomes of its users."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from conseq.analyses.subject import subject_of
from conseq.data.log import InteractionLog
from conseq.data.sequences import Sequences
from conseq.data.train_set import Instances, TrainSet
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.matrix_factorization import MatrixFactorizationConfig
from conseq.encoders.sasrec import SASRecConfig
from conseq.methods.bpr import BPR, BPRConfig
from conseq.run import runner
from conseq.run.config import from_record
from conseq.run.judging import judge_bundle

N_ITEMS = 9
LISTS = [[1, 2, 3, 4, 1, 5, 6, 2], [6, 7], [2, 4, 6], [9, 1, 5, 3]]
ROWS = [3, 0, 5, 1]  # the users' rows in the log
ways = pytest.mark.parametrize("instances", ["prefixes", "whole"])


def make(config: BPRConfig, instances: Instances = "prefixes", windows: bool | Literal["disjoint"] = True) -> BPR:
    train = TrainSet(
        Sequences.from_lists(LISTS), torch.tensor(ROWS), N_ITEMS, instances=instances, max_length=3, windows=windows
    )
    torch.manual_seed(0)
    method = BPR(config, train, MatrixFactorizationConfig(width=4, max_length=3))
    with torch.no_grad():
        method.encoder.items.weight.mul_(50)
        method.encoder.users.mul_(50)
    return method


@ways
@pytest.mark.parametrize("windows", [True, "disjoint"])
def test_an_epoch_has_every_interaction_once(instances: Instances, windows: bool | Literal["disjoint"]) -> None:
    method = make(BPRConfig(), instances, windows)
    found: Counter[tuple[int, int]] = Counter()
    for batch in method.train_set.batches(2, torch.Generator().manual_seed(1)):
        users, items = method.met(batch)
        found.update(zip(users.tolist(), items.tolist(), strict=True))
    assert found == Counter((row, item) for row, items in zip(ROWS, LISTS, strict=True) for item in items)


@ways
def test_the_terms_are_the_slow_ones(instances: Instances) -> None:
    method = make(BPRConfig(negatives=2, regularization=0.1), instances)
    batch = method.train_set.batch(torch.arange(len(method.train_set)))
    found = {name: term.item() for name, term in method.loss(batch, torch.Generator().manual_seed(3)).items()}
    users, items = (one.tolist() for one in method.met(batch))
    drawn = method.sampler.draw(torch.tensor(users), 2, torch.Generator().manual_seed(3)).tolist()
    w, h = method.encoder.users.tolist(), method.encoder.items.weight.tolist()
    ranking, squares = [], []
    for user, item, others in zip(users, items, drawn, strict=True):
        for other in others:
            assert other not in LISTS[ROWS.index(user)]
            margin = math.fsum(a * (b - c) for a, b, c in zip(w[user], h[item], h[other], strict=True))
            ranking.append(-math.log(1 / (1 + math.exp(-margin))))
            squares.append(math.fsum(x * x for vector in (w[user], h[item], h[other]) for x in vector))
    expected = {"ranking": np.mean(ranking), "regularization": 0.1 * np.mean(squares)}
    assert found == pytest.approx(expected, rel=1e-5)


def test_without_a_weight_there_is_no_regularization() -> None:
    method = make(BPRConfig())
    assert set(method.loss(method.train_set.batch(torch.arange(4)), torch.Generator())) == {"ranking"}


def test_an_encoder_without_users_is_refused() -> None:
    train = TrainSet(Sequences.from_lists(LISTS), torch.tensor(ROWS), N_ITEMS, instances="prefixes", max_length=3)
    with pytest.raises(ValueError, match="BPR trains encoders of class MatrixFactorization, found SASRec"):
        BPR(BPRConfig(), train, SASRecConfig(width=4, max_length=3))  # type: ignore[arg-type]


def two_tastes() -> InteractionLog:
    """40 users, each of whom likes either the first or the last ten items, and has met six of them."""
    rng = np.random.default_rng(0)
    items = np.concatenate([rng.permutation(10)[:6] + 1 + 10 * (user % 2) for user in range(40)]).astype(np.int32)
    ids = [[f"{kind}{n}" for n in range(count)] for kind, count in (("u", 40), ("i", 20))]
    return InteractionLog(items, np.arange(41) * 6, None, Vocabulary(ids[0], start=0), Vocabulary(ids[1], start=1), {})


CONFIG = from_record(
    {
        "method": {"name": "bpr"},
        "encoder": {"name": "matrix_factorization", "width": 8},
        "split": {"name": "leave_one_out"},
        "training": {
            "instances": "prefixes",
            "epochs": 30,
            "batch_size": 32,
            "learning_rate": 0.02,
            "metric": "NDCG@5",
            "history": "exclude",
        },
    },
    source="test",
)


def test_a_judged_bundle_knows_its_users_and_no_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = two_tastes()
    outcome = runner.run(CONFIG, log, folder=tmp_path)
    own = outcome.evaluations["exclude"]
    # Of 20 items the user has met 5: 15 are left, and 5 of them are of the user's taste.
    assert own.metrics["HR@5"] >= 0.9
    again = judge_bundle(tmp_path, log, history="exclude")
    assert np.array_equal(again.ranks, own.ranks)
    assert capsys.readouterr().err == ""
    # The same people in the other order: by row each would be somebody of the other taste.
    backwards = np.arange(40)[::-1]
    items = log.items.reshape(40, 6)[backwards].ravel()
    turned = InteractionLog(
        items, log.offsets, None, Vocabulary([log.user_ids.ids[user] for user in backwards], start=0), log.item_ids, {}
    )
    judged = judge_bundle(tmp_path, turned, history="exclude")
    assert "every user is a stranger" in capsys.readouterr().err
    assert judged.metrics["HR@5"] >= 0.9
    asked = subject_of(tmp_path, turned)
    assert "every user is a stranger" in capsys.readouterr().err
    assert np.array_equal(runner.judge(asked.encoder, asked.split, history="exclude").ranks, judged.ranks)


def test_a_user_of_whom_there_is_no_example_is_made_of_his_history() -> None:
    """A sequence of one item has no next one: nothing would train its user's vector."""
    histories, rows = Sequences.from_lists([[1, 2, 3], [4], [5, 6]]), torch.tensor([0, 2, 1])
    train = TrainSet(histories, rows, N_ITEMS, instances="prefixes", max_length=3)
    method = BPR(BPRConfig(), train, MatrixFactorizationConfig(width=4, max_length=3))
    assert method.encoder.known.tolist() == [True, True]
    asked = Sequences.from_lists([[4], [4], [5, 6]])
    scores = method.encoder.scores(torch.tensor([2, -1, 1]), asked)
    assert torch.equal(scores[0], scores[1])
    assert torch.allclose(scores[2], method.encoder.users[1] @ method.encoder.items.candidates.T)
