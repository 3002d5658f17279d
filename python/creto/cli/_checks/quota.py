"""Quota: that the last unit is the last."""

from __future__ import annotations

import threading

from creto.cli._checks import Bench, Check
from creto.errors import QuotaExceededError

__all__ = ["CHECKS"]


def _race(_bench: Bench) -> str:
    from creto.metering import QuotaEnforcer

    rule = {"scope": "organisation:doctor", "meter": "tool_calls", "limit": 500, "window": "1h", "share": "process"}
    quota = QuotaEnforcer([rule])
    taken: list[int] = []

    def take() -> None:
        count = 0
        for _ in range(250):
            try:
                quota.consume_nowait(["doctor", "team", "agent"], {"tool_calls": 1})
                count += 1
            except QuotaExceededError:
                continue
        taken.append(count)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if sum(taken) != 500:
        raise AssertionError(f"4 threads got {sum(taken)} units of a quota of 500")
    return "4 threads asked 1000 times for 500 units and got exactly 500"


CHECKS = [Check("quota", "four threads at one limit", _race)]
