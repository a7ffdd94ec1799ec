"""A program that asks a slow platform about N images through a pool, made to be killed and started again.

The platform appends the number of each query it has processed to a log *before* it answers, as a real one would.

Usage: victim.py LEDGER SECRET LOG N CONCURRENCY BATCH [START]: images START to START + N.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tests.pooling.scripted import ScriptedPlatform, distinct, truth
from ttca.answers import Answers
from ttca.images import Images
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import Member, Pace, QueryPool


def main(target: str, secret: str, log_path: str, n: int, concurrency: int, batch: int, start: int = 0) -> None:
    """Ask about all images and print how many answers came."""
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def process(_number: int, images: Images) -> Answers:
        time.sleep(0.002)
        numbers = [int(i[0, 0, 0]) + 251 * int(i[0, 0, 1]) for i in images]
        os.write(log, "".join(f"{number}\n" for number in numbers).encode())
        time.sleep(0.002)
        return truth(images)

    members = [Member("ada", 4 * n), Member("ben", 2 * n), Member("cem", n)]
    with Ledger(target, secret=Path(secret)) as ledger:
        pool = QueryPool(ScriptedPlatform(process), ledger, members, pace=Pace(concurrency=concurrency, batch=batch))
        answers = pool.ask(distinct(n, start=start))
    sys.stdout.write(f"{int(answers.answered.sum())}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], *(int(a) for a in sys.argv[4:8]))
