"""A metric and a control of your own beside the result: `python examples/own_metric.py` (ttca[learn]; seconds)."""

from __future__ import annotations

import tempfile

import numpy as np
from numpy.typing import NDArray

import ttca


def bright(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return how dark and how bright each picture is, as probabilities."""
    light = 1 / (1 + np.exp((128 - pictures.mean(axis=(1, 2, 3))) / 4))
    return np.stack([1 - light, light], axis=1)


def false_alarms(y_true: NDArray[np.int64], y_pred: NDArray[np.int64]) -> float:
    """Return how often somebody who is dark is called bright."""
    return float((y_pred[y_true == 0] == 1).mean())


def main() -> None:
    """Act on a model of brightness, with a metric of ours and a control that mirrors each picture."""
    rng = np.random.default_rng(0)
    true, faint = np.arange(400) % 2, np.arange(400) % 4 < 2
    level = 128 + np.where(true == 1, 1, -1) * np.where(faint, 3, 20) + rng.normal(0, 4, 400)
    pictures = np.clip(level[:, None, None, None] + rng.normal(0, 5, (400, 8, 8, 3)), 0, 255).astype(np.uint8)
    mirrored = ttca.Control(name="mirrored", label="Mirrored", sends=lambda scene: scene.with_delta[:, :, ::-1])
    with ttca.CollectiveAction(
        tempfile.mkdtemp(),
        platform=ttca.LocalPlatform(bright, classes=("dark", "bright"), image_shape=(8, 8, 3)),
        members=[ttca.Member("me", quota=5_000)],
        roster=ttca.split_roles(ttca.People.build(pictures, true, subgroup=faint), seed=0),
        settings=ttca.Settings(epsilons=(8,), epochs=5, steps=5, control_lengths=(1.0,), weights="none"),
        measuring=ttca.Measuring(metrics={"false_alarms": false_alarms}, controls=[mirrored]),
    ) as action:
        row, _ = action.measure()
        print({name: round(value, 3) for name, value in row.extra.items()})


if __name__ == "__main__":
    main()
