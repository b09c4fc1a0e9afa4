"""What stands around the application: every request is counted and timed, and none may be too large."""

from __future__ import annotations

import time
from collections.abc import Collection

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from conseq.serving.http.gauges import Gauges


class Measured:
    """Counts, times and limits requests.

    Args:
        app: The application.
        paths: The paths that are counted by name; all others together are "other".
        gauges: What counts.
        most: Bytes of a request's body.
    """

    def __init__(self, app: ASGIApp, *, paths: Collection[str], gauges: Gauges, most: int) -> None:
        self._app = app
        self._paths = paths
        self._gauges = gauges
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, read = time.perf_counter(), 500, 0

        async def received() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                raise HTTPException(413, self._too_large())
            return message

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if _told(scope) > self._most:
                await JSONResponse({"detail": self._too_large()}, 413)(scope, receive, sent)
            else:
                await self._app(scope, received, sent)
        finally:
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            self._gauges.request(path if path in self._paths else "other", status, time.perf_counter() - began)

    def _too_large(self) -> str:
        return f"the body has more than the {self._most} bytes that a request may have; ask in several requests"


def _told(scope: Scope) -> int:
    """Gives the length of the body that the request's head tells; 0 where it tells none."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0
