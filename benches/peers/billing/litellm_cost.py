"""Nanoseconds of litellm.cost_per_token for one act: three kinds of tokens of one model, as `price_one_act` has."""

from __future__ import annotations

import json
import os
import statistics
import time

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # the table that comes with it, not one from the network

from importlib.metadata import version

import litellm


def main() -> None:
    def price() -> object:
        return litellm.cost_per_token(
            model="gpt-4o", prompt_tokens=2000, completion_tokens=350, cache_read_input_tokens=800
        )

    for _ in range(2_000):
        price()
    means = []
    for _ in range(101):
        start = time.perf_counter_ns()
        for _ in range(200):
            price()
        means.append((time.perf_counter_ns() - start) / 200)
    print(json.dumps({"version": version("litellm"), "value": statistics.median(means)}))


if __name__ == "__main__":
    main()
