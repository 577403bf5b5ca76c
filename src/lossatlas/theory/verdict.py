"""What settles a claim: a function that computes, and returns true, false or conditional."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

V = TypeVar("V")

#: The verdicts a claim can have. "awaiting" stands until a study's records settle it, "open" where all its runs are
#: there and decide nothing, "withdrawn" where a study settled it and its findings are withdrawn.
VERDICTS = ("true", "false", "conditional", "open", "awaiting", "withdrawn")


@dataclass(frozen=True)
class Verdict:
    """The outcome of a computation on a claim.

    Attributes:
        verdict: one of :data:`VERDICTS`.
        because: a sentence or two with the computed numbers; Markdown with formulas.
        condition: what a conditional claim, or the limits of a true one, depend on.
        said: the verdict with its places, "false at 3 %, open elsewhere"; empty where `verdict` says it all.
        details: rows of (condition, place, found, outcome) behind it, where a study's records settle it.
    """

    verdict: str
    because: str
    condition: str = ""
    said: str = ""
    details: tuple[tuple[str, str, str, str], ...] = ()

    @property
    def text(self) -> str:
        """The verdict as a page prints it."""
        return self.said or self.verdict

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"verdict must be one of {VERDICTS}, got {self.verdict!r}")


_SETTLED_BY: dict[str, Callable[[], Verdict]] = {}
_NOTED_BY: dict[str, Callable[[], str]] = {}


def settles(*claims: int | str) -> Callable[[Callable[[], Verdict]], Callable[[], Verdict]]:
    """Registers a function as what settles one or more claims, by their ids."""
    return _registers(_SETTLED_BY, claims, "is settled twice")


def notes(*claims: int | str) -> Callable[[Callable[[], str]], Callable[[], str]]:
    """Registers what a computation adds to a claim that only training can settle, by the claim's id.

    The function returns Markdown. It is no verdict, and it changes none.
    """
    return _registers(_NOTED_BY, claims, "has two notes")


def _registers(
    table: dict[str, Callable[[], V]], claims: tuple[int | str, ...], again: str
) -> Callable[[Callable[[], V]], Callable[[], V]]:
    def register(function: Callable[[], V]) -> Callable[[], V]:
        once = cache(function)
        for claim in claims:
            if str(claim) in table:
                raise ValueError(f"claim {claim} {again}: {function.__name__}")
            table[str(claim)] = once
        return once

    return register


def noted() -> dict[str, Callable[[], str]]:
    """Every registered note by the claim's id."""
    return dict(_NOTED_BY)


def settled() -> dict[str, Callable[[], Verdict]]:
    """Every registered function by the claim's id."""
    return dict(_SETTLED_BY)


def decide(holds: bool, because: str, condition: str = "") -> Verdict:
    """True or false, as a computation says."""
    return Verdict("true" if holds else "false", because, condition)
