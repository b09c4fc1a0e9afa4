"""The paths of the service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import pydantic
import pydantic_core
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from conseq.config import explain
from conseq.data.log import InteractionLog
from conseq.serving.http.batching import Answered, Batcher, BusyError
from conseq.serving.http.gauges import Gauges
from conseq.serving.http.limits import Limits
from conseq.serving.http.live import Live
from conseq.serving.http.measured import Measured
from conseq.serving.http.messages import (
    Health,
    HistoriesRequest,
    Problem,
    RecommendAnswer,
    RecommendRequest,
    SimilarAnswer,
    SimilarRequest,
    VectorsAnswer,
)
from conseq.serving.http.reading import Reader

BODIES: dict[str, type[pydantic.BaseModel]] = {
    "/recommend": RecommendRequest,
    "/similar": SimilarRequest,
    "/vectors": HistoriesRequest,
}
REFUSED: dict[int | str, dict[str, Any]] = {
    413: {"model": Problem, "description": "More bytes than a request may have."},
    422: {"model": Problem, "description": "Not what is expected; the text says what is."},
    503: {"model": Problem, "description": "Too many requests wait; ask again later."},
}


def build(live: Live, limits: Limits, log: InteractionLog | None) -> FastAPI:
    """Gives the application.

    Args:
        live: The model.
        limits: What is refused.
        log: Histories by user id; None where there are none.

    Returns:
        The application; while it runs, it has a thread for the model and one that looks at the bundle.
    """
    gauges = Gauges()
    batcher = Batcher(live, most=limits.waiting, observe=gauges.batch)
    gauges.of(live, batcher)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        try:
            yield
        finally:
            batcher.stop()

    app = FastAPI(title="conseq", version=version("conseq"), lifespan=lifespan)
    paths = {*BODIES, "/health", "/metrics"}
    app.add_middleware(Measured, paths=paths, gauges=gauges, most=limits.body)
    _refuse_well(app)
    _answers(app, batcher, Reader(live, limits, log), gauges)
    _states(app, live, gauges)
    return app


def _answers(app: FastAPI, batcher: Batcher, asked: Reader, gauges: Gauges) -> None:
    """Adds the paths that ask the model."""

    @app.post("/recommend", response_model=RecommendAnswer, responses=REFUSED)
    async def recommend(request: RecommendRequest) -> Response:
        """Gives the best items of the catalogue for each history."""
        answered = await batcher.recommend(asked.recommendations(request))
        found = answered.value
        gauges.recommended(found)
        items = found.items if request.history is None else found.items[0]
        return _answer(answered, k=request.k, dropped=found.dropped, empty=found.empty, recommendations=items)

    @app.post("/similar", response_model=SimilarAnswer, responses=REFUSED)
    async def similar(request: SimilarRequest) -> Response:
        """Gives the items whose vectors have the largest cosine with an item's."""
        items = asked.items(request)
        answered = await batcher.ask(lambda model: model.similar_items(items, request.k).to_dicts())
        found = answered.value if request.item is None else answered.value[0]
        return _answer(answered, k=request.k, similar=found)

    @app.post("/vectors", response_model=VectorsAnswer, responses=REFUSED)
    async def vectors(request: HistoriesRequest) -> Response:
        """Gives the vectors of histories, for an index of your own."""
        histories = asked.histories(request)
        answered: Answered[Any] = await batcher.ask(
            lambda model: model.user_vectors(histories, unknown=request.unknown).tolist()
        )
        found = answered.value if request.history is None else answered.value[0]
        return _answer(answered, vectors=found)


def _states(app: FastAPI, live: Live, gauges: Gauges) -> None:
    """Adds the paths that tell of the service itself."""

    @app.get("/health")
    async def health() -> Health:
        """Says which model answers."""
        model = live.model
        return Health(
            status="ok",
            model=model.name,
            encoder=model.manifest.encoder.name,
            n_items=model.manifest.n_items,
            loaded_at=model.at,
            trouble=live.trouble,
        )

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Gives the measures in the text format of Prometheus."""
        return Response(gauges.text(), media_type=gauges.content_type)


def _answer(answered: Answered[Any], **values: object) -> Response:
    # Made here and not by FastAPI, which would check every item of it against its description.
    body = pydantic_core.to_json({**values, "model": answered.model.name})
    return Response(body, media_type="application/json")


def _refuse_well(app: FastAPI) -> None:
    """Makes every refusal an object with ``detail``, one text that says what was found and what was expected."""

    @app.exception_handler(RequestValidationError)
    async def misread(request: Request, error: RequestValidationError) -> JSONResponse:
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        return JSONResponse({"detail": _explained(error, BODIES[path])}, 422)

    @app.exception_handler(ValueError)
    @app.exception_handler(TypeError)
    @app.exception_handler(KeyError)
    async def refused(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error.args[0] if error.args else error)}, 422)

    @app.exception_handler(BusyError)
    async def busy(_: Request, error: BusyError) -> JSONResponse:
        del error
        return JSONResponse(
            {"detail": "too many requests wait for the model; ask again later"}, 503, {"Retry-After": "1"}
        )


def _explained(error: RequestValidationError, cls: type[pydantic.BaseModel]) -> str:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return f"the body is not JSON: {first['ctx']['error']} at character {first['loc'][-1]}"
    if not isinstance(error.body, dict):
        return "expected a JSON object as the body, with the header Content-Type: application/json"
    try:
        cls.model_validate(error.body)
    except pydantic.ValidationError as same:
        return explain(same, cls)
    return str(first["msg"])
