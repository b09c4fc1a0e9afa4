"""What stands around the application: requests are counted and timed, and a body is neither too large nor too late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from conseq.serving.http.gauges import Gauges
from conseq.serving.http.limits import Limits


class Measured:
    """Counts, times and limits requests.

    Args:
        app: The application.
        paths: The paths that are counted by name; all others together are "other".
        gauges: What counts.
        limits: How large a body may be, and how long it may take to come.
    """

    def __init__(self, app: ASGIApp, *, paths: Collection[str], gauges: Gauges, limits: Limits) -> None:
        self._app = app
        self._paths = paths
        self._gauges = gauges
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if _told(scope) > self._limits.body:
                await JSONResponse({"detail": self._too_large()}, 413)(scope, receive, sent)
            else:
                await self._app(scope, self._limited(receive), sent)
        finally:
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            self._gauges.request(path if path in self._paths else "other", status, time.perf_counter() - began)

    def _limited(self, receive: Receive) -> Receive:
        read, whole = 0, False
        until = time.monotonic() + self._limits.seconds

        async def received() -> Message:
            nonlocal read, whole
            if whole:  # what comes now is that the client goes away
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), until - time.monotonic())
            except TimeoutError:
                raise HTTPException(408, f"the body did not come within {self._limits.seconds:g} seconds") from None
            read += len(message.get("body", b""))
            if read > self._limits.body:
                raise HTTPException(413, self._too_large())
            whole = not message.get("more_body", False)
            return message

        return received

    def _too_large(self) -> str:
        return f"the body has more than the {self._limits.body} bytes that a request may have; ask in several requests"


def _told(scope: Scope) -> int:
    """Gives the length of the body that the request's head tells; 0 where it tells none."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0
