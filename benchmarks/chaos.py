"""Does a pool survive everything at once? Members killed, the network stalling, the hub and PostgreSQL restarted."""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._bad_network import bad_network
from benchmarks._postgres import PostgresServer
from benchmarks._processes import free_port
from benchmarks._slow_platform import CLASSES, IMAGE_SHAPE, scores, slow_platform
from ttca.answers import Answers
from ttca.errors import TTCAError
from ttca.platforms.http import HttpPlatform
from ttca.pooling.leases import LeaseDesk
from ttca.pooling.ledger import Ledger

__all__ = ["QUICK", "main"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = ("--members", "8", "--queries", "800", "--kills", "4", "--restarts", "1")

SIZE, CONCURRENCY = 8, 2
LEASE_S = 20.0
FIRST_LEASES = 5


def main(argv: list[str]) -> dict[str, Any]:
    """Let real members work for one hub while everything breaks, and count what stands in the books at the end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks chaos", description=__doc__)
    parser.add_argument("--members", type=int, default=50, help="number of member processes")
    parser.add_argument("--queries", type=int, default=10_000, help="images that need one accepted answer each")
    parser.add_argument("--kills", type=int, default=50, help="members killed with SIGKILL, at random moments")
    parser.add_argument("--restarts", type=int, default=3, help="crashes of PostgreSQL, and of the hub")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds after which the run counts as failed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log = folder / "platform.log"
        server = PostgresServer()
        stack.callback(server.remove)
        # Everybody speaks to the platform through a network that stalls, shorter than any time-out.
        platform_url, platform_net = stack.enter_context(
            bad_network(
                stack.enter_context(slow_platform(0.02, log=log)),
                stall_s=2.0,
                every_s=5.0,
                breaks=False,
                seed=options.seed + 1,
            )
        )
        scene = _Scene(folder, server, platform_url, options.members, options.queries)
        stack.callback(scene.end)
        scene.begin()
        hub_url, hub_net = stack.enter_context(
            bad_network(scene.hub_url, stall_s=2.0, every_s=4.0, breaks=True, seed=options.seed)
        )
        began = time.perf_counter()
        scene.invite(hub_url)
        done = scene.work(options.kills, options.restarts, options.limit, random.Random(options.seed))
        seconds = time.perf_counter() - began
        result = scene.count(log)
    bound = result["kills"] * SIZE * CONCURRENCY
    holds = {
        "every_query_has_one_right_answer": result["right_answers"] == options.queries,
        "no_quota_exceeded": result["quotas_exceeded"] == 0,
        "answered_within_log_within_charged": result["answered"] <= result["platform_log"] <= result["charged"],
        "excess_is_unknown": result["charged"] - result["answered"] == result["unknown"],
        "excess_within_kills_times_concurrency": result["unknown"] <= bound,
    }
    return {
        **result,
        "holds": holds,
        "all_hold": done and all(holds.values()),
        "finished": done,
        "excess_allowed": bound,
        "members": options.members,
        "queries": options.queries,
        "size": SIZE,
        "concurrency_of_a_member": SIZE * CONCURRENCY,
        "stalls": hub_net.stalls + platform_net.stalls,
        "connections_broken": hub_net.broken,
        "seconds": seconds,
        "seed": options.seed,
    }


@dataclass
class _Scene:
    """One platform, one PostgreSQL, one hub and its members, all of them processes."""

    folder: Path
    server: PostgresServer
    platform_url: str
    members: int
    queries: int
    hub_url: str = ""
    kills: int = 0
    restarts: int = 0
    _hub: subprocess.Popen[str] | None = None
    _working: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _environments: dict[str, dict[str, str]] = field(default_factory=dict)

    def begin(self) -> None:
        """Enrol everybody, load the images and start the hub."""
        self._ledger = self.server.database()
        self._secret = self.folder / "ledger.key"
        images = _images(self.queries)
        with Ledger(self._ledger, secret=self._secret) as ledger:
            # Twice what a fair share would be: some members will be dead or slow.
            quota = 2 * self.queries // self.members + 8 * FIRST_LEASES
            ledger.enrol({f"member-{i:02d}": quota for i in range(self.members)})
            self._desk(ledger).load(images, [f"member-{i % self.members:02d}" for i in range(self.queries)])
        self._port = free_port()
        self._start_hub()

    def invite(self, hub_url: str) -> None:
        """Write every member's own file and token."""
        with Ledger(self._ledger, secret=self._secret) as ledger:
            for i in range(self.members):
                name = f"member-{i:02d}"
                (self.folder / f"{name}.toml").write_text(
                    f"[contribute]\nhub = {json.dumps(hub_url)}\ntoken_variable = 'TTCA_HUB_TOKEN'\n"
                    f"size = {SIZE}\nconcurrency = {CONCURRENCY}\n[platform]\nurl = {json.dumps(self.platform_url)}\n"
                    f"model = 'slow'\nclasses = {json.dumps(CLASSES)}\n"
                )
                self._environments[name] = {**os.environ, "TTCA_HUB_TOKEN": ledger.invite(name)}

    def work(self, kills: int, restarts: int, limit_s: float, rng: random.Random) -> bool:
        """Run all members, kill and restart as told at random moments, until all is answered; return whether it was."""
        give_up = time.monotonic() + limit_s
        at = sorted(rng.uniform(0.05, 0.9) for _ in range(kills))
        crashes = sorted(rng.uniform(0.1, 0.8) for _ in range(restarts))
        with Ledger(self._ledger, secret=self._secret) as ledger:
            desk = self._desk(ledger)
            while time.monotonic() < give_up:
                share = desk.progress().answered / self.queries
                if desk.is_done():
                    self._wait_for_members(give_up)
                    return True
                for name in self._environments:
                    process = self._working.get(name)
                    if process is None or process.poll() is not None:
                        self._start_member(name)
                while at and share >= at[0]:
                    at.pop(0)
                    running = [n for n, p in self._working.items() if p.poll() is None]
                    self._working[rng.choice(running)].kill()
                    self.kills += 1
                if crashes and share >= crashes[0]:
                    crashes.pop(0)
                    self.restarts += 1
                    self.server.stop()
                    self.server.start()
                    if self._hub is not None:
                        self._hub.kill()
                        self._hub.communicate()
                    self._start_hub()
                time.sleep(0.1)
        return False

    def count(self, log: Path) -> dict[str, Any]:
        """Return what the ledger and the platform's own log say."""
        images = _images(self.queries)
        with Ledger(self._ledger, secret=self._secret) as ledger:
            balances = ledger.balances()
            keys = ledger.keys(images, fingerprint=self._info().fingerprint, epoch="pool")
            known, found = ledger.lookup(keys, classes=len(CLASSES))
            flagged = len(self._desk(ledger).flagged())
        truth = Answers.from_scores(scores(images).astype(np.float32))
        return {
            "right_answers": int((known & (found.labels == truth.labels)).sum()),
            "answered": sum(b.answered for b in balances),
            "platform_log": sum(json.loads(line)["rows"] for line in log.read_text().splitlines()),
            "charged": sum(b.charged for b in balances),
            "unknown": sum(b.unknown for b in balances),
            "unusable": sum(b.unusable for b in balances),
            "refunded": sum(b.refunded for b in balances),
            "quotas_exceeded": sum(b.charged > b.quota for b in balances),
            "flagged": flagged,
            "kills": self.kills,
            "restarts_of_postgres_and_hub": self.restarts,
        }

    def end(self) -> None:
        """End every process that was started here."""
        for process in self._working.values():
            process.kill()
            process.communicate()
        if self._hub is not None:
            self._hub.kill()
            self._hub.communicate()

    def _wait_for_members(self, give_up: float) -> None:
        for process in self._working.values():
            process.wait(max(1.0, give_up - time.monotonic()))

    def _start_member(self, name: str) -> None:
        with (self.folder / f"{name}.err").open("ab") as errors:
            self._working[name] = subprocess.Popen(
                [sys.executable, "-m", "ttca", "contribute", str(self.folder / f"{name}.toml"), "--json"],
                env=self._environments[name],
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )

    def _start_hub(self) -> None:
        task = {
            "platform": self.platform_url,
            "ledger": self._ledger,
            "secret": str(self._secret),
            "port": self._port,
            "lease_s": LEASE_S,
            "first_leases": FIRST_LEASES,
        }
        command = [sys.executable, "-m", "benchmarks._chaos_hub", json.dumps(task)]
        self._hub = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if self._hub.stdout is None or not (url := self._hub.stdout.readline().strip()):
            raise TTCAError("Expected the hub to start, got nothing. See what it printed.")
        self.hub_url = url

    def _desk(self, ledger: Ledger) -> LeaseDesk:
        return LeaseDesk(ledger, self._info())

    def _info(self) -> Any:
        with HttpPlatform(self.platform_url, model="slow", classes=CLASSES) as platform:
            return platform.info


def _images(n: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (n, *IMAGE_SHAPE), dtype=np.uint8)
