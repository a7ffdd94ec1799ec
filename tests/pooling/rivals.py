"""A program that opens each ledger named on its input and charges both members until nothing is left.

Several of them run at once on the same files; each prints what it was allowed to charge, and the name it gives
to one image, as a JSON line per ledger.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from ttca.errors import QuotaError
from ttca.pooling.ledger import Ledger


def main() -> None:
    """Serve one ledger per line of standard input."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        task = json.loads(line)
        charged = dict.fromkeys(task["quotas"], 0)
        with Ledger(task["target"], secret=Path(task["secret"])) as ledger:
            ledger.enrol(task["quotas"], cap=task["cap"])
            image = np.zeros((1, 2, 2, 3), np.uint8)
            (key,) = ledger.keys(image, fingerprint="f", epoch="e")
            for n in (3, 1):
                for member in charged:
                    try:
                        while True:
                            ledger.charge(member, [key] * n, request_id="r", number=1, purpose="pool")
                            charged[member] += n
                    except QuotaError:
                        pass
        sys.stdout.write(json.dumps({"charged": charged, "key": key.hex()}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
