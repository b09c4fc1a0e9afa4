"""What a client sends and what it gets, as JSON objects; the description under ``/docs`` is made of these."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from conseq.serving.histories import Unknown
from conseq.serving.ranking import OnEmpty

# The ids themselves are checked by what reads them, whose errors say more than a union's.
_ID: dict[str, Any] = {"anyOf": [{"type": "string"}, {"type": "integer"}]}
_IDS: dict[str, Any] = {"type": "array", "items": _ID}
Ids = Annotated[list[Any], WithJsonSchema(_IDS)]
Rows = Annotated[list[Any], WithJsonSchema({"type": "array", "items": _IDS})]
IdsOrRows = Annotated[list[Any], WithJsonSchema({"anyOf": [_IDS, {"type": "array", "items": _IDS}]})]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class HistoriesRequest(_Message):
    """Whose vectors are asked for: one of ``history``, ``histories`` and ``users``."""

    history: Ids | None = None
    """Item ids of one history, the oldest first."""
    histories: Rows | None = None
    """Item ids of each of any number of histories."""
    users: Ids | None = None
    """Ids of users in the log that the service was started with."""
    unknown: Unknown = "drop"
    """What to do with an item that the model does not know: leave it out, or refuse the request."""


class RecommendRequest(HistoriesRequest):
    """For whom recommendations are asked for: one of ``history``, ``histories`` and ``users``."""

    k: int = Field(default=10, ge=1)
    """Items to recommend for each."""
    exclude_seen: bool = True
    """Never recommend what is in the history."""
    candidates: IdsOrRows | None = None
    """Recommend only these: one list for all histories, or one for each."""
    exclude: IdsOrRows | None = None
    """Never recommend these: one list for all histories, or one for each."""
    on_empty: OnEmpty | None = None
    """What to do with a history without a known item: refuse, recommend what is popular, or recommend nothing."""


class SimilarRequest(_Message):
    """The items whose neighbours are asked for."""

    item: Annotated[Any, WithJsonSchema(_ID)] = None
    """One item id."""
    items: Ids | None = None
    """Any number of item ids."""
    k: int = Field(default=10, ge=1)
    """Neighbours of each."""


class Item(_Message):
    """One item of an answer."""

    item_id: str
    score: float
    """Inner product of vectors; of similar items their cosine; of what is popular how often it was met."""
    rank: int
    """From 1, the best."""


class RecommendAnswer(_Message):
    """Recommendations: for ``history`` one list, else one list for each history or user."""

    k: int
    dropped: int
    """Unknown items that were left out of the histories, in all."""
    empty: list[int]
    """The histories (counted from 0) that have no known item."""
    recommendations: list[Item] | list[list[Item]]
    model: str
    """Which model answered: the first digits of its weights' SHA-256."""


class SimilarAnswer(_Message):
    """Neighbours: for ``item`` one list, else one list for each item."""

    k: int
    similar: list[Item] | list[list[Item]]
    model: str


class VectorsAnswer(_Message):
    """Vectors: for ``history`` one, else one for each; of an encoder of several interests several."""

    vectors: list[Any]
    """Floats; a score is the inner product with an item's vector, and the greatest of them for several interests."""
    model: str


class Health(_Message):
    """Which model answers."""

    status: str
    """``ok``: requests are answered."""
    model: str
    encoder: str
    n_items: int
    loaded_at: float
    """In seconds since 1970."""
    trouble: str | None
    """Why the bundle that stands in the folder now does not answer; null where it does."""


class Problem(_Message):
    """Why a request was refused."""

    detail: str
