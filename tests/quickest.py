"""How long something takes, measured so that a busy machine does not answer for the program."""

from __future__ import annotations

from collections.abc import Callable


def quickest(measure: Callable[[], float], enough: float, tries: int = 8) -> float:
    """The least of a few durations, in seconds; no more are taken once one is below `enough`.

    Whatever else the machine does can hold up each of them, and cannot make one quick that is slow by itself.
    """
    least = measure()
    for _ in range(tries - 1):
        if least < enough:
            break
        least = min(least, measure())
    return least
