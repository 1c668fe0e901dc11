"""Telling a person how far a long step is. Assets call it; the command line shows it; the UI ignores it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """Something that shows steps."""

    def start(self, step: str, total: int, unit: str) -> None:
        """A step of `total` units begins (0: unknown)."""

    def advance(self, amount: int) -> None:
        """So many units of the current step are done."""

    def done(self) -> None:
        """The current step is over."""


class Silent:
    """Shows nothing."""

    def start(self, step: str, total: int, unit: str) -> None:
        """Nothing."""

    def advance(self, amount: int) -> None:
        """Nothing."""

    def done(self) -> None:
        """Nothing."""


@contextmanager
def step(progress: Progress, name: str, total: int, unit: str) -> Iterator[Progress]:
    """A step that ends, whatever happens in it."""
    progress.start(name, total, unit)
    try:
        yield progress
    finally:
        progress.done()
