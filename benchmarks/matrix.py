"""Does a small proxy move a large platform of another kind? One action for every pair of architectures."""

from __future__ import annotations

import argparse
import math
from typing import Any

from benchmarks._cells import plain, settings_of
from benchmarks._tracks import TRACKS, onnx_file, trained_classifier
from benchmarks._trained import TRAINED
from benchmarks.effect import add_settings, changed, run_cell
from ttca.errors import ConfigError, WorthlessProxyError
from ttca.proxies.architectures import create_model

__all__ = ["PLATFORMS", "PROXIES", "QUICK", "main"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = (
    "--queries", "250", "--proxies", "small-resnet", "--platforms", "cifar10-resnet20",
    "--set", "public_epochs=1", "epochs=5", "steps=20",
)  # fmt: skip

PROXIES = ("small-mobilenet", "small-cnn", "small-resnet")
PLATFORMS = ("cifar10-resnet20", "cifar10-resnet56", "cifar10-vit-tiny", "cifar10-resnet18")
#: Of the public regime's settings, what a grid of twelve cells leaves out.
_PLAIN: dict[str, Any] = {"rounds": 0, "steps": 100}


def main(argv: list[str]) -> dict[str, Any]:
    """Run every pair of proxy and platform once and state sizes, fidelity and the whole honest row of each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks matrix", description=__doc__)
    parser.add_argument("--queries", type=int, default=1000, help="images sent for the pool, in each cell")
    parser.add_argument("--epsilon", type=int, default=8, help="levels of 255")
    parser.add_argument("--proxies", nargs="+", choices=PROXIES, default=PROXIES)
    parser.add_argument("--platforms", nargs="+", choices=PLATFORMS, default=PLATFORMS)
    parser.add_argument("--seed", type=int, default=0)
    add_settings(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    shared = {**_PLAIN, **changed(options.set)}
    if "architectures" in shared:
        raise ConfigError("Expected settings that all pairs share, got architectures. Name them with --proxies.")
    sizes = {name: proxy_size(name) for name in options.proxies}
    cells = []
    for name in options.platforms:
        track = TRACKS[name]
        size = platform_size(name)
        with track.open_platform("scores") as platform:
            for proxy in options.proxies:
                chosen = {**track.settings["public"], **shared, "architectures": (proxy,)}
                settings = settings_of(track, chosen, epsilons=(options.epsilon,), seed=options.seed)
                pair = {
                    "proxy": proxy,
                    "platform": name,
                    "proxy_parameters": sizes[proxy],
                    "platform_parameters": size,
                    "platform_over_proxy": size / sizes[proxy],
                }
                try:
                    ran = run_cell(track, platform, settings, queries=options.queries, regime="public")
                except WorthlessProxyError as error:
                    # A pair that cannot act is a result of the matrix too.
                    cells.append({**pair, "failed": str(error)})
                    continue
                cells.append({**pair, **ran.kept("dev-test")})
    whole = (options.proxies, options.platforms, options.seed, options.set) == (PROXIES, PLATFORMS, 0, [])
    return {
        "file": f"matrix-q{options.queries}-e{options.epsilon}"
        + ("" if whole else f"-s{options.seed}-" + "-".join([*options.proxies, *options.platforms, *options.set])),
        "settings": {
            **plain(shared),
            "of": "each platform's track, in the regime public, with the proxy as architecture",
        },
        "queries": options.queries,
        "epsilon": options.epsilon,
        "seed": options.seed,
        "people": "dev-test",
        "cells": cells,
    }


def proxy_size(architecture: str) -> int:
    """Return the trainable parameters of a proxy of ten classes."""
    return sum(p.numel() for p in create_model(architecture, classes=10, seed=0).parameters())


def platform_size(track: str) -> int:
    """Return the weights of a platform: those of its ONNX file, or of the classifier trained here."""
    name = track.removeprefix("cifar10-")
    if name in TRAINED:
        return trained_classifier(name).parameters
    import onnx

    tensors = onnx.load(str(onnx_file(track))).graph.initializer
    return sum(math.prod(t.dims) for t in tensors if t.data_type == onnx.TensorProto.FLOAT)
