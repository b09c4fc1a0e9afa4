"""Which encoders a method trains: those that its class is declared for, its own or one above it."""

from __future__ import annotations

from typing import TypeVar

import pytest
import torch

from conseq.data.sequences import Sequences
from conseq.data.train_set import TrainSet
from conseq.encoders.bert4rec import BERT4RecConfig
from conseq.encoders.caser import CaserConfig
from conseq.encoders.encoder import Backbone, Encoder, TokenEncoder
from conseq.encoders.gru4rec import GRU4Rec, GRU4RecConfig
from conseq.encoders.sasrec import SASRecConfig
from conseq.methods.method import Method

T = TypeVar("T", bound=TokenEncoder)

SASREC = SASRecConfig(width=8, layers=1, heads=1, max_length=5)
GRU = GRU4RecConfig(width=8, max_length=5)
BERT = BERT4RecConfig(width=8, layers=1, heads=1, max_length=5)
CASER = CaserConfig(width=8)


class Undeclared(Method):  # type: ignore[type-arg]
    pass


class Any(Method[Encoder]):
    pass


class Stateful(Method[TokenEncoder]):
    pass


class Below(Stateful):
    pass


class Bound(Method[T]):
    pass


class Narrowed(Bound[GRU4Rec]):
    pass


def build(kind: type[Method[Encoder]], backbone: Backbone[Encoder]) -> Method[Encoder]:
    return kind(
        TrainSet(Sequences.from_lists([[1, 2, 3]]), torch.arange(1), 3, instances="prefixes", max_length=5), backbone
    )


@pytest.mark.parametrize("backbone", [SASREC, GRU, BERT, CASER])
def test_a_method_for_any_encoder_takes_each(backbone: Backbone[Encoder]) -> None:
    for kind in (Undeclared, Any):
        assert isinstance(build(kind, backbone).encoder, Encoder)


@pytest.mark.parametrize("kind", [Stateful, Below, Bound])
def test_a_method_of_ones_own_that_needs_states_refuses_encoders_whose_states_see_what_comes_after(
    kind: type[Method[Encoder]],
) -> None:
    taken: list[Backbone[Encoder]] = [SASREC, GRU]
    refused: list[tuple[Backbone[Encoder], str]] = [(BERT, "BERT4Rec"), (CASER, "Caser")]
    for backbone in taken:
        assert isinstance(build(kind, backbone).encoder, TokenEncoder)
    for backbone, name in refused:
        with pytest.raises(
            ValueError, match=f"^{kind.__name__} needs .*{name} has no token states; use encoder 'sasrec'"
        ):
            build(kind, backbone)


def test_a_method_for_one_encoder_refuses_the_others() -> None:
    assert isinstance(build(Narrowed, GRU).encoder, GRU4Rec)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Narrowed trains encoders of class GRU4Rec, found SASRec; choose another"):
        build(Narrowed, SASREC)  # type: ignore[arg-type]
