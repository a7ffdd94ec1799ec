"""Pretrained models: a backbone's network with its weights, under a new head for a platform's classes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ttca.proxies.architectures import Normalized, seeded
from ttca.proxies.backbones import NO_ONNX, ONNX, Backbone
from ttca.proxies.registry import find_model

__all__ = ["Pretrained", "create_pretrained"]

#: What may stand between the last linear layer and a published network's output: it changes no order of classes.
_AFTER_HEAD = ("Softmax", "LogSoftmax", "Identity", "OnnxSoftmaxV1V11", "OnnxLogSoftmaxV1V11")
#: Of the images that an ONNX network of any size is tried with.
_ANY_SIDE = 64


class Pretrained(nn.Module):
    """A published network under a new head: it takes float32 NCHW in [0, 1] and returns logits (N, C).

    Parameters
    ----------
    body : torch.nn.Module
    head : str
        Where its last linear layer lies, as ``named_modules`` says it.
    side : int, optional
        Where it takes images of one size alone: others are resized for it.
    """

    def __init__(self, body: nn.Module, head: str, *, side: int | None) -> None:
        super().__init__()
        self.body = body
        self.side = side
        self._head = head

    @property
    def head(self) -> nn.Linear:
        """The new layer."""
        return cast(nn.Linear, self.body.get_submodule(self._head))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.side is not None and images.shape[2:] != (self.side, self.side):
            images = nn.functional.interpolate(
                images, (self.side, self.side), mode="bilinear", align_corners=False, antialias=True
            )
        logits: torch.Tensor = self.body(images)
        return logits


def create_pretrained(backbone: Backbone, *, classes: int, seed: int) -> Pretrained:
    """Return a backbone's network with its weights and a new head, the same for the same seed.

    Parameters
    ----------
    backbone : Backbone
    classes : int
        Number of logits C.
    seed : int
        Of the new head.

    Raises
    ------
    ValueError
        If the file is not the one that the backbone names, its weights do not fit the network, or an ONNX file cannot
        be read for lack of onnx2torch.
    """
    backbone.check()
    with seeded(seed):
        if backbone.architecture == ONNX:
            body, head = _from_onnx(backbone, classes)
        else:
            body, head = _from_tensors(backbone, classes, seed)
    model = Pretrained(body, head, side=backbone.side if backbone.fixed else None)
    return model.to(memory_format=torch.channels_last)


def _from_tensors(backbone: Backbone, classes: int, seed: int) -> tuple[nn.Module, str]:
    name = backbone.architecture.removeprefix("timm/")
    if name == backbone.architecture:
        network = find_model(name)(classes, seed)
        head = _last_linear(network)
    else:
        import timm

        inner = timm.create_model(name, pretrained=False, num_classes=classes, in_chans=3)
        last = cast(Any, inner).get_classifier()
        head = next((n for n, m in inner.named_modules() if m is last), "")
        known = cast(dict[str, Any], inner.pretrained_cfg)
        mean, std = backbone.mean or tuple(known["mean"]), backbone.std or tuple(known["std"])
        network, head = Normalized(inner, mean, std), f"body.{head}"
    if not isinstance(network.get_submodule(head), nn.Linear):
        raise ValueError(f"Expected a network that ends in a linear layer, got {backbone.architecture}.")
    _load(backbone, network, head)
    return network, head


def _load(backbone: Backbone, network: nn.Module, head: str) -> None:
    """Give a network the weights of a file, all but its head; names are timm's, or as ttca writes a proxy."""
    wanted = {k: v for k, v in network.state_dict().items() if not k.startswith(f"{head}.")}
    try:
        with safe_open(backbone.path, framework="pt") as file:
            keys = set(file.keys())
            # A proxy's only model; a fine-tuned backbone's within it; a network as ours; timm's within it.
            starts = ("models.0.body.", "models.0.", "", "body.")
            named = [{k: s + k for k in wanted} for s in starts]
            inner = {k: k.removeprefix("body.") for k in wanted if k not in ("mean", "std")}
            found = next((n for n in (*named, inner) if set(n.values()) <= keys), None)
            if found is None:
                missing = sorted(set(inner.values()) - keys)[:3]
                raise ValueError(f"it lacks {', '.join(missing)}")
            state = {k: file.get_tensor(name) for k, name in found.items()}
        wrong = next((k for k, v in state.items() if v.shape != wanted[k].shape), None)
        if wrong is not None:
            raise ValueError(f"{wrong} is {tuple(state[wrong].shape)} there and {tuple(wanted[wrong].shape)} here")
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(
            f"Expected weights of {backbone.architecture} in {backbone.path}, got others: {error}."
        ) from None
    network.load_state_dict(state, strict=False)


def _last_linear(network: nn.Module) -> str:
    found = [name for name, part in network.named_modules() if isinstance(part, nn.Linear)]
    return found[-1] if found else ""


def _from_onnx(backbone: Backbone, classes: int) -> tuple[nn.Module, str]:
    try:
        import onnx
        from onnx2torch import convert
    except ImportError:
        raise ValueError(NO_ONNX) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = convert(onnx.load(str(Path(backbone.path)), load_external_data=False))
        # Its layers index as PyTorch once did, and each would say so to whoever runs them.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"onnx2torch\.")
    except Exception as error:
        # onnx2torch raises whatever the operator that it does not know brings about.
        raise ValueError(
            f"Expected a network that onnx2torch converts at {backbone.path}, got: {type(error).__name__}: {error}."
        ) from None
    outputs = _logits_of(graph, backbone)
    output = next(n for n in graph.graph.nodes if n.op == "output")
    last = output.args[0][0] if isinstance(output.args[0], tuple | list) else output.args[0]
    place = last
    while place.op == "call_module" and type(graph.get_submodule(place.target)).__name__ in _AFTER_HEAD:
        place = place.args[0]
    if place.op == "call_module" and isinstance(graph.get_submodule(place.target), nn.Linear):
        head = str(place.target)
        setattr(graph, head, nn.Linear(graph.get_submodule(head).in_features, classes))
        output.args = (place,)
    else:
        # What the network returned is what a new layer stands on.
        head = "ttca_head"
        graph.add_module(head, nn.Linear(outputs, classes))
        with graph.graph.inserting_before(output):
            output.args = (graph.graph.call_module(head, (last,)),)
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    graph.recompile()
    if backbone.mean is None and backbone.std is None:
        return graph, head
    return Normalized(graph, backbone.mean or (0.0,) * 3, backbone.std or (1.0,) * 3), f"body.{head}"


def _logits_of(graph: nn.Module, backbone: Backbone) -> int:
    """Return how many logits a converted network gives for each image of a batch, or raise."""
    side = backbone.side or _ANY_SIDE
    try:
        with torch.inference_mode():
            said = graph.eval()(torch.zeros(3, 3, side, side))
        said = said[0] if isinstance(said, tuple | list) else said
        if said.ndim != 2 or len(said) != 3:
            raise ValueError(f"it returns {tuple(said.shape)} for three images")
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"Expected a classifier of any number of images at {backbone.path}, got another network: {error}."
        ) from None
    return int(said.shape[1])
