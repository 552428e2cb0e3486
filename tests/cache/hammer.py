"""A process that uses a cache directory as hard as it can; started by test_processes.py.

`python -m tests.cache.hammer DIRECTORY NAME ROUNDS SIZE_LIMIT`: puts rows of its own and
asks for rows of the process named "a", checking every hit. Prints a line after each round
whose rows are written; at the end one of JSON.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from pathlib import Path

import trio

from tests.cache.rows import hits, open_cache, put_all, row_key

ROWS = 20  # a round
LENGTHS = (100, 16 * 1024, 100_000)


def round_keys(name: str, number: int) -> list[str]:
    return [row_key(f"{name}-{number}-{n}", random.Random(n).choice(LENGTHS)) for n in range(ROWS)]


async def main(directory: Path, name: str, rounds: int, size_limit: int) -> None:
    cache = await open_cache(directory, size_limit=size_limit)
    found: Counter[str] = Counter()
    for number in range(rounds):
        await put_all(cache, round_keys(name, number))
        print(number, flush=True)
        for owner in ("a", name):
            found[owner] += (await hits(cache, round_keys(owner, number // 2))).count(True)
    await cache.aclose()
    print(json.dumps(found))


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
