"""Gives every method's page its place in the site, so that a new method needs no line in ``mkdocs.yml``."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig

BEFORE = "Decisions"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Gives the configuration with the pages of ``docs/methods`` before the decisions; MkDocs calls it once."""
    pages = sorted(page.name for page in Path(config.docs_dir, "methods").glob("*.md"))
    entries = config.nav or []
    if pages:
        place = next(number for number, entry in enumerate(entries) if BEFORE in entry)
        config.nav = [*entries[:place], {"Methods": [f"methods/{name}" for name in pages]}, *entries[place:]]
    return config
