"""Published weights for tests: tiny networks in every kind of file that a backbone may come in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from onnx import TensorProto, helper, numpy_helper, save
from safetensors.torch import save_file
from torch import nn

from ttca.proxies.architectures import create_model

#: timm's smallest, and the tag of its published weights.
TINY, TAG = "test_efficientnet", "test_efficientnet.r160_in1k"


def onnx_file(
    path: Path,
    *,
    classes: int = 5,
    side: int | str = "h",
    live: bool = False,
    ends: str = "linear",
    seed: int = 0,
    **metadata: str,
) -> Path:
    """Write a convolution, a pool and a last layer: ``live`` with batch normalization, else as it is folded.

    ``ends``: with ``linear``, with ``softmax`` behind it, or with a ``product`` that no layer of torch is.
    """
    rng = np.random.default_rng(seed)
    weights = {
        "conv.w": rng.normal(0, 0.4, (8, 3, 3, 3)),
        "conv.b": rng.normal(0, 0.1, 8),
        "bn.w": np.ones(8),
        "bn.b": np.full(8, 2.0),
        "bn.m": np.full(8, 3.0),
        "bn.v": np.full(8, 9.0),
        "fc.w": rng.normal(0, 1, (classes, 8)),
        "fc.b": np.zeros(classes),
        "fc.t": rng.normal(0, 1, (8, classes)),
    }
    nodes = [helper.make_node("Conv", ["image", "conv.w", "conv.b"], ["c"], pads=[1, 1, 1, 1])]
    if live:
        nodes.append(helper.make_node("BatchNormalization", ["c", "bn.w", "bn.b", "bn.m", "bn.v"], ["n"]))
    nodes += [
        helper.make_node("Relu", ["n" if live else "c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
    ]
    if ends == "product":
        nodes.append(helper.make_node("MatMul", ["f", "fc.t"], ["logits"]))
    else:
        last = "logits" if ends == "linear" else "z"
        nodes.append(helper.make_node("Gemm", ["f", "fc.w", "fc.b"], [last], transB=1))
    if ends == "softmax":
        nodes.append(helper.make_node("Softmax", ["z"], ["logits"], axis=-1))
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, side, side])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items() if k in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    helper.set_model_props(model, metadata)
    save(model, str(path))
    return path


def network(architecture: str, classes: int, seed: int = 7) -> nn.Module:
    """Return a network with weights of its own, as others may have trained it."""
    if architecture.startswith("timm/"):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            made: nn.Module = timm.create_model(architecture.removeprefix("timm/"), num_classes=classes)
            return made.eval()
    return create_model(architecture, classes=classes, seed=seed).eval()


def tensors_file(path: Path, architecture: str, *, classes: int = 5, says: bool = True, **metadata: Any) -> Path:
    """Write a network's weights as safetensors; where it ``says`` so, with its architecture."""
    told = {"architecture": architecture} if says else {}
    told |= {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
    state = {k: v.contiguous().clone() for k, v in network(architecture, classes).state_dict().items()}
    save_file(state, path, metadata=told or None)
    return path


def hub_cache(home: Path) -> Path:
    """Lay out a cache of the hub that holds timm's tiny network, and return it."""
    repository = home / f"models--timm--{TAG}"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc", encoding="utf-8")
    tensors_file(snapshot / "model.safetensors", f"timm/{TINY}", classes=1000, says=False)
    return home
