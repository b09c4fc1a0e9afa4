"""Numbers of analyses by the names of cells."""

from __future__ import annotations

from pathlib import Path

import pytest

from conseq.analyses import ANALYSES, analyse
from conseq.data.readers import read
from conseq.run import runner
from conseq.study.analysed import _KINDS, numbers, shown
from conseq.study.specification import load_table


def test_every_analysis_has_its_numbers(experiments: Path, data: Path, tmp_path: Path) -> None:
    assert set(_KINDS) == set(ANALYSES)
    config = load_table(experiments / "paper/table1/toy.toml").rows[0].config
    assert config is not None
    log = read(str(data / "toy/interactions.csv"))
    runner.run(config, log, folder=tmp_path / "run")
    noise = analyse("noise", {"shares": [0.0, 0.5]}, tmp_path / "run", log, history="keep")
    found = numbers("noise", noise)
    assert {name.partition(", ")[0] for name in found} == set(noise["clean"])
    assert shown("noise", found, ["HR@5"]) == ["HR@5, 0% noise", "HR@5, 50% noise"]
    assert {name: found[name] for name in shown("noise", found)} == {
        "NDCG@20, 0% noise": noise["points"][0]["metrics"]["NDCG@20"],
        "NDCG@20, 50% noise": noise["points"][1]["metrics"]["NDCG@20"],
    }
    groups = analyse("groups", {"edges": [5]}, tmp_path / "run", log, history="keep")
    found = numbers("groups", groups)
    assert [one["name"] for one in groups["groups"]] == [name.rpartition(" ")[2] for name in shown("groups", found)]
    assert sum(value for name, value in found.items() if name.startswith("users, ")) == log.n_users
    assert sum(value for name, value in found.items() if name.startswith("interactions, ")) == len(log)
    shape = analyse("representations", {"pairs": 10, "points": 10}, tmp_path / "run", log)
    assert numbers("representations", shape)["effective rank, items"] == pytest.approx(shape["items"]["effective_rank"])
    cost = analyse("complexity", {}, tmp_path / "run", log)
    assert numbers("complexity", cost)["parameters"] > 0
    assert set(numbers("complexity", cost)) == {"parameters", "users per second", "seconds per epoch"}
    assert shown("complexity", numbers("complexity", cost)) == list(numbers("complexity", cost))
    views = {
        "kinds": {"random 1": {"uniformity": -2.0}, "random 2": {"uniformity": -3.0}},
        "pairs": {"random 1, random 2": {"value": 0.5, "others": 1.5}},
    }
    assert numbers("views", views) == {
        "alignment, random 1, random 2": 0.5,
        "distance of others, random 1, random 2": 1.5,
        "uniformity, random 1": -2.0,
        "uniformity, random 2": -3.0,
    }
    agreed = {"purity": 0.5, "nmi": 0.2}
    assert numbers("purity", {"agreement": agreed, "chance": {"purity": 0.3, "nmi": 0.1}}) == {
        "purity": 0.5,
        "nmi": 0.2,
        "purity, by chance": 0.3,
        "nmi, by chance": 0.1,
    }


def test_shares_of_noise_that_round_alike_have_names_of_their_own() -> None:
    points = [{"share": share, "metrics": {"HR@5": share}} for share in (0.0, 0.004, 0.02, 0.025)]
    assert list(numbers("noise", {"points": points})) == [
        "HR@5, 0% noise",
        "HR@5, 0.4% noise",
        "HR@5, 2% noise",
        "HR@5, 2.5% noise",
    ]
