"""Encoders and methods of the user's own that cannot be trained, and what the look at them leaves as it was."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from pydantic import Field
from tests.run.test_runner import SMALL, log
from torch import Tensor, nn

from conseq.config import settings
from conseq.data.sequences import Sequences
from conseq.data.splits import leave_one_out
from conseq.data.train_set import Batch
from conseq.encoders import ENCODERS
from conseq.encoders.encoder import Encoder, TokenEncoder
from conseq.methods.method import Method, Terms
from conseq.methods.next_item import NextItem, NextItemConfig
from conseq.nn import pooling
from conseq.nn.items import ItemTable
from conseq.run import runner, trying
from conseq.run.config import from_record
from conseq.run.trying import check_own_parts
from conseq.training.records import read_metrics


class Mean(Encoder):
    """The mean of the items' vectors, as wrong as is asked."""

    def __init__(self, config: MeanConfig, items: ItemTable) -> None:
        super().__init__(items)
        self.config = config
        self.dropout = nn.Dropout(0.2)
        if config.frozen:
            self.requires_grad_(False)

    def forward(self, histories: Sequences) -> Tensor:
        if not self.training:
            torch.rand(3)  # an encoder that draws where it need not
        out: Tensor = self.dropout(pooling.mean(self.items(histories.ids), histories))
        if self.config.wrong == "shape":
            return out[:, 1:]
        if self.config.wrong == "type":
            return out.double()
        return out if self.config.wrong != "list" else cast("Tensor", out.tolist())


@settings
class MeanConfig:
    """Settings of the mean."""

    width: int = Field(default=8)
    max_length: int = 6
    wrong: str = ""
    frozen: bool = False

    def __call__(self, items: ItemTable) -> Mean:
        return Mean(self, items)


class Tokens(TokenEncoder):
    """Item vectors as states, as wrong as is asked."""

    def __init__(self, config: TokensConfig, items: ItemTable) -> None:
        super().__init__(items)
        self.config = config
        if config.bounded:
            self.max_length = config.max_length

    def contextualize(self, x: Tensor, seqs: Sequences, *, causal: bool = True) -> Tensor:
        return x if not self.config.short else x[seqs.last]

    def forward(self, histories: Sequences) -> Tensor:
        return self.items(histories.ids)[histories.last]


@settings
class TokensConfig:
    """Settings of the tokens."""

    width: int = 8
    max_length: int = 6
    bounded: bool = True
    short: bool = False

    def __call__(self, items: ItemTable) -> Tokens:
        return Tokens(self, items)


class Detached(Method[Encoder]):
    """A loss that no gradient can be computed of."""

    def __init__(self, config: NextItemConfig, train: Any, backbone: Any) -> None:
        super().__init__(train, backbone)

    def loss(self, batch: Batch, rng: torch.Generator) -> Terms:
        loss = self.encoder(batch.history).square().mean()
        return {"small": loss.detach(), "half": 0.5 * loss.detach()}


class HalfDetached(Detached):
    """A loss of which one term moves nothing."""

    def loss(self, batch: Batch, rng: torch.Generator) -> Terms:
        loss = self.encoder(batch.history).square().mean()
        return {"small": 0.5 * loss.detach(), "whole": loss}


class Own(NextItem):
    """The baseline under a name of the user's own."""


def config(encoder: object, method: str = "next_item") -> Any:
    here = {"name": f"{__name__}:{type(encoder).__name__}", **{k: getattr(encoder, k) for k in _keys(encoder)}}
    training = {**SMALL["training"], "instances": "prefixes", "epochs": 2}
    return from_record({"method": {"name": method}, "encoder": here, "training": training}, source="test")


def _keys(encoder: object) -> list[str]:
    return list(type(encoder).__pydantic_fields__)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (
            MeanConfig(wrong="shape"),
            r"^Mean gives as vectors of 2 histories a tensor of shape \[2, 7\] of torch.float32 on cpu; expected a "
            r"tensor of shape \[2, 8\] of torch.float32 on cpu$",
        ),
        (MeanConfig(wrong="type"), r"shape \[2, 8\] of torch.float64 on cpu; expected .* of torch.float32 on cpu$"),
        (MeanConfig(wrong="list"), r"^Mean gives as vectors of 2 histories a list; expected a tensor of shape"),
        (MeanConfig(frozen=True), r"^NextItem: the group 'all' has no parameter that requires a gradient"),
        (TokensConfig(bounded=False), r"^Tokens has no max_length; expected a whole number"),
        (TokensConfig(short=True), r"^Tokens gives as states of 3 items a tensor of shape \[2, 8\] .*\[3, 8\]"),
    ],
)
def test_what_an_encoder_gives_wrongly_is_told_before_the_training(encoder: object, message: str) -> None:
    with pytest.raises(runner.SettingsError, match=message):
        runner.run(config(encoder), log())


def test_a_loss_without_a_gradient_is_told_by_its_terms() -> None:
    message = r"^Detached: the loss of the group 'all' has no gradient: none of its terms \('small', 'half'\) depends"
    with pytest.raises(runner.SettingsError, match=message):
        runner.run(config(MeanConfig(), f"{__name__}:Detached"), log())


def test_a_term_without_a_gradient_is_told_beside_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runner.run(config(MeanConfig(), f"{__name__}:HalfDetached"), log(), folder=tmp_path / "run", show="lines")
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch ")]
    assert len(told) == 2
    assert all(re.search(r"  small \d\.\d{4} \(no gradient\)  whole \d\.\d{4}  validation", line) for line in told)
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [one["without_gradient"] for one in records] == [["small"], ["small"]]


def test_the_look_moves_no_number_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for looks in (True, False):
        if not looks:
            monkeypatch.setattr(runner, "check_own_parts", lambda method: None)
        found.append(runner.run(config(MeanConfig()), log()).encoder.state_dict())
    assert all(torch.equal(one, found[1][name]) for name, one in found[0].items())


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_our_own_encoders_would_stand_the_look(name: str) -> None:
    encoder = ENCODERS[name]()
    trying._check_encoder(encoder(ItemTable(9, encoder.width)))


def test_a_method_of_ones_own_over_our_encoder_is_looked_at_in_its_groups_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = from_record({**SMALL, "method": {"name": "next_item"}}, source="test")
    made = runner.build(one, leave_one_out(log()), torch.device("cpu"))
    monkeypatch.setattr(trying, "_check_encoder", lambda encoder: pytest.fail("ours are not looked at"))
    check_own_parts(made)
    own = Own(NextItemConfig(), made.train_set, one.encoder)
    check_own_parts(own)
    with pytest.raises(ValueError, match=r"^Own: the group 'all' has no parameter that requires a gradient"):
        check_own_parts(own.requires_grad_(False))
