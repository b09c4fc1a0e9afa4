"""The requests that the guide shows get what it shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from conseq.serving.http import application

PAGE = Path(__file__).resolve().parents[3] / "docs" / "guides" / "serve.md"


def test_the_requests_of_the_guide_get_what_it_shows(
    tmp_path: Path, save: Callable[..., Path], serving: Callable[[FastAPI], Any]
) -> None:
    page = PAGE.read_text(encoding="utf-8")
    asked = re.findall(r"^\$ curl http://127.0.0.1:8000(/\w+) .* -d '(.+)'\n(.*)", page, re.MULTILINE)
    assert len(asked) == 5
    items = ["k1-00", "k1-01", "k1-02", "k1-03", "k4-07"]
    client = serving(application(save(tmp_path / "bundle", items=items, counts=[1] * 5), look_every=0))
    for path, body, shown in asked:
        printed = client.send(path, body.encode())[1].decode()
        keys, shown_keys = (re.findall(r'"(\w+)":', text) for text in (printed, shown))
        assert shown_keys == keys[: len(shown_keys)]
        assert "..." in shown or len(shown_keys) == len(keys)
        assert "detail" not in shown or shown == printed
