"""Settings that do not fit each other, or lack what every other has: refused where an experiment is read."""

from __future__ import annotations

from conseq.run.splitting import ByTime, Splitting


def check_moments(split: Splitting, source: str) -> None:
    """Refuses shares beside the moments that they would give; those of the default may stand there, as in a record.

    Args:
        split: How the log is cut.
        source: Where that is said, for the error.

    Raises:
        ValueError: if the shares do nothing.
    """
    if not isinstance(split, ByTime) or split.validation_from is None or split.test_from is None:
        return
    if split.shares != ByTime().shares:
        raise ValueError(
            f"{source}: shares={split.shares} do nothing beside validation_from={split.validation_from!r} and "
            f"test_from={split.test_from!r}; give the shares or the two moments"
        )


def check_own_encoder(name: str, settings: object) -> None:
    """Refuses settings of an encoder of the user's own that lack what all others have.

    Args:
        name: The encoder's, for the error.
        settings: Its settings.

    Raises:
        ValueError: if they lack something; names it.
    """
    needed = {
        "width": "the width of the item table that the encoder reads",
        "max_length": "the most recent items of a history that the encoder reads",
    }
    for field, what in needed.items():
        found = getattr(settings, field, None)
        if not isinstance(found, int) or isinstance(found, bool) or found < 1:
            shown = f"no {field}" if found is None else f"{field} = {short(found)}"
            raise ValueError(
                f"encoder {name!r}: its settings class has {shown}; expected a whole number of at least 1, {what}"
            )
    if not callable(settings):
        raise ValueError(
            f"encoder {name!r}: its settings class cannot be called; expected a method __call__(self, items) that "
            "gives the encoder over an item table"
        )


def short(value: object) -> str:
    """Gives a value as it is shown in an error: a table or a list of many rows would fill the screen."""
    shown = repr(value)
    return shown if len(shown) <= 80 else f"a {type(value).__name__}"
