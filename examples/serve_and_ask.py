"""A platform of your own behind HTTP, and one query to it: `python examples/serve_and_ask.py` (ttca[serve])."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import ttca
from ttca.platforms.server import background_server


def bright(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return how dark and how bright each picture is, as probabilities."""
    light = pictures.mean(axis=(1, 2, 3)) / 255
    return np.stack([1 - light, light], axis=1)


def main() -> None:
    """Serve a model with an API's habits, ask it twice about the same pictures, and say what was paid."""
    pictures = np.stack([np.full((8, 8, 3), level, np.uint8) for level in (20, 120, 240)])
    served = ttca.LocalPlatform(bright, classes=("dark", "bright"), image_shape=(8, 8, 3))
    with background_server(ttca.WithHabits(served, ttca.Habits(decimals=2))) as url:
        ledger = Path(tempfile.mkdtemp()) / "ledger.sqlite"
        with (
            ttca.HttpPlatform(url, model="local", classes=("dark", "bright")) as platform,
            ttca.Ledger(ledger) as books,
        ):
            pool = ttca.QueryPool(platform, books, [ttca.Member("ada", quota=10)])
            for _ in range(2):
                print([platform.info.classes[k] for k in pool.ask(pictures, purpose="example").labels])
            print("Ada paid", books.balances("ada")[0].charged, "queries for", len(pictures), "pictures.")


if __name__ == "__main__":
    main()
