"""The hub of the chaos benchmark, in a process of its own that may be killed and started again on the same ledger."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks._slow_platform import CLASSES
from ttca.platforms.connections import ConnectionLimits
from ttca.platforms.http import HttpPlatform
from ttca.platforms.server import run_app
from ttca.pooling.hub import create_hub
from ttca.pooling.leases import CheckPlan, LeaseDesk
from ttca.pooling.ledger import Ledger


def main(task: dict[str, object]) -> None:
    """Serve until killed; print the URL once connections are accepted."""
    with HttpPlatform(str(task["platform"]), model="slow", classes=CLASSES) as platform:
        info = platform.info
    with Ledger(str(task["ledger"]), secret=Path(str(task["secret"]))) as ledger:
        desk = LeaseDesk(
            ledger,
            info,
            plan=CheckPlan(judged=2 * int(str(task["first_leases"]))),
            lease_s=float(str(task["lease_s"])),
        )

        def started(url: str) -> None:
            sys.stdout.write(url + "\n")
            sys.stdout.flush()

        hub = create_hub(ledger, desk, name="chaos")
        run_app(hub, port=int(str(task["port"])), on_start=started, limits=ConnectionLimits())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
