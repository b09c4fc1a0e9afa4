"""The paths of the service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, TypeVar

import pydantic
import pydantic_core
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from conseq.config import explain
from conseq.data.log import InteractionLog
from conseq.serving.http.batching import Answered, Batcher, BusyError, Each
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
from conseq.serving.http.reading import Reader, RefusedError
from conseq.serving.ranking import EmptyHistoryError, ScoresError

BODIES: dict[str, type[pydantic.BaseModel]] = {
    "/recommend": RecommendRequest,
    "/similar": SimilarRequest,
    "/vectors": HistoriesRequest,
}
REFUSED: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "A body that cannot be read."},
    408: {"model": Problem, "description": "The body did not come in time."},
    413: {"model": Problem, "description": "More bytes than a request may have."},
    422: {"model": Problem, "description": "Not what is expected; the text says what is."},
    503: {"model": Problem, "description": "The model cannot be asked now; ask again later."},
}
GONE = 499
"""The status that a request is counted with when its client has gone away; nginx has it, too."""
EXPLAINED = 3
"""Unknown keys for which the nearest right one is looked for."""
LONGEST = 1000
"""Characters of what is said of a request."""

T = TypeVar("T")


class GoneError(Exception):
    """Whoever asked has gone away."""


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
    batcher = Batcher(live, most=limits.waiting, seconds=limits.seconds, observe=gauges.batch)
    gauges.of(live, batcher)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        try:
            yield
        finally:
            await asyncio.to_thread(batcher.stop)

    app = FastAPI(title="conseq", version=version("conseq"), lifespan=lifespan)
    paths = {*BODIES, "/health", "/metrics"}
    app.add_middleware(Measured, paths=paths, gauges=gauges, limits=limits)
    _refuse_well(app)
    _answers(app, batcher, Reader(live, limits, log), gauges)
    _states(app, live, batcher, gauges)
    return app


def _answers(app: FastAPI, batcher: Batcher, asked: Reader, gauges: Gauges) -> None:
    """Adds the paths that ask the model."""

    @app.post("/recommend", response_model=RecommendAnswer, responses=REFUSED)
    async def recommend(request: RecommendRequest, http: Request) -> Response:
        """Gives the best items of the catalogue for each history."""
        question = asked.recommendations(request)
        try:
            answered = await _unless_gone(http, batcher.recommend(question))
        except EmptyHistoryError as error:
            raise RefusedError(_empty(request, error)) from None
        found = answered.value
        gauges.recommended(found)
        items = found.items if request.history is None else found.items[0]
        return _answer(answered, k=request.k, dropped=found.dropped, empty=found.empty, recommendations=items)

    @app.post("/similar", response_model=SimilarAnswer, responses=REFUSED)
    async def similar(request: SimilarRequest, http: Request) -> Response:
        """Gives the items whose vectors have the largest cosine with an item's."""
        question = Each(
            asked.items(request),
            lambda model, items: model.similar_items(items, request.k).to_dicts(),
            ("similar", request.k),
        )
        answered = await _unless_gone(http, batcher.ask_of_each(question))
        found = answered.value if request.item is None else answered.value[0]
        return _answer(answered, k=request.k, similar=found)

    @app.post("/vectors", response_model=VectorsAnswer, responses=REFUSED)
    async def vectors(request: HistoriesRequest, http: Request) -> Response:
        """Gives the vectors of histories, for an index of your own."""
        question = Each(
            asked.histories(request),
            lambda model, histories: model.user_vectors(histories, unknown=request.unknown).tolist(),
            ("vectors", request.unknown),
        )
        answered = await _unless_gone(http, batcher.ask_of_each(question))
        found = answered.value if request.history is None else answered.value[0]
        return _answer(answered, vectors=found)


def _states(app: FastAPI, live: Live, batcher: Batcher, gauges: Gauges) -> None:
    """Adds the paths that tell of the service itself."""

    @app.head("/health", include_in_schema=False)
    @app.get("/health", responses={503: {"model": Health, "description": "Requests are not answered."}})
    async def health(response: Response) -> Health:
        """Says which model answers."""
        model = live.model
        response.status_code = 200 if batcher.works else 503
        return Health(
            status="ok" if batcher.works else "ended",
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


async def _unless_gone(http: Request, answer: Coroutine[Any, Any, T]) -> T:
    """Gives the model's answer or refusal; it is no longer asked for when the client closes the connection."""
    answering, leaving = asyncio.ensure_future(answer), asyncio.ensure_future(_gone(http))
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise GoneError
        return answering.result()
    except (EmptyHistoryError, ScoresError):
        raise
    except (ValueError, KeyError) as error:  # what the recommender refuses
        raise RefusedError(error.args[0]) from None
    finally:
        answering.cancel()
        leaving.cancel()


async def _gone(http: Request) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


def _empty(request: RecommendRequest, error: EmptyHistoryError) -> str:
    if request.users is not None:
        return error.of(request.users[error.row])
    which = "the history" if request.history is not None else f"history {error.row} (counted from 0)"
    return f"{which} has no known item; leave it out, or give 'on_empty': 'popular' or 'blank'"


def _answer(answered: Answered[Any], **values: object) -> Response:
    # Made here and not by FastAPI, which would check every item of it against its description.
    body = pydantic_core.to_json({**values, "model": answered.model.name})
    return Response(body, media_type="application/json")


def _refuse_well(app: FastAPI) -> None:
    """Makes every refusal an object with ``detail``, one text that says what was found and what was expected."""

    @app.exception_handler(RequestValidationError)
    async def misread(request: Request, error: RequestValidationError) -> JSONResponse:
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        return _problem(422, _explained(error, BODIES[path]))

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> JSONResponse:
        return _problem(422, str(error))

    @app.exception_handler(BusyError)
    async def busy(_: Request, error: BusyError) -> JSONResponse:
        return _problem(503, str(error), {"Retry-After": "1"})

    @app.exception_handler(GoneError)
    async def gone(_: Request, error: GoneError) -> Response:
        del error
        return Response(status_code=GONE)  # nobody reads it, but it is counted

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        del error  # what it is goes to the service's log, not to the client
        return _problem(500, "the service failed; its log says how")


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    cut = detail if len(detail) <= LONGEST else detail[: LONGEST - 4] + " ..."
    return JSONResponse({"detail": cut}, status, headers)


def _explained(error: RequestValidationError, cls: type[pydantic.BaseModel]) -> str:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return f"the body is not JSON: {first['ctx']['error']} at character {first['loc'][-1]}"
    if not isinstance(error.body, dict):
        return "expected a JSON object as the body, with the header Content-Type: application/json"
    # To look for what each of a hundred thousand unknown keys might mean would keep all others waiting.
    unknown = [key for key in error.body if key not in cls.model_fields]
    told = {*cls.model_fields, *unknown[:EXPLAINED]}
    body = {key: value for key, value in error.body.items() if key in told}
    try:
        cls.model_validate(body)
    except pydantic.ValidationError as same:
        return explain(same, cls)
    return str(first["msg"])
