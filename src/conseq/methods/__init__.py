"""The methods by name."""

from typing import Any

from conseq.methods.method import Method
from conseq.methods.next_item import NextItem, NextItemConfig

METHODS: dict[str, tuple[type[Method[Any]], type[Any]]] = {
    "next_item": (NextItem, NextItemConfig),
}
