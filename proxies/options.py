"""How a proxy is trained: one object, checked where it is made, without torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, get_args

from ttca.proxies.backbones import Backbone
from ttca.proxies.registry import Architecture, architecture_name
from ttca.proxies.runtime import Precision, check_threads

__all__ = ["Distilling"]


@dataclass(frozen=True, kw_only=True)
class Distilling:
    """How :func:`ttca.proxies.distillation.train_proxy` trains a proxy.

    Parameters
    ----------
    architectures : tuple of str or callable
        One model each; with more than one the proxy is their ensemble, all trained on the same answers. Names for
        :func:`ttca.proxies.architectures.create_model`, or factories, which become names. None, where there are
        backbones.
    backbones : tuple of Backbone
        Further models of the ensemble, which stand before the others and start from weights learned elsewhere. They get
        a new head by a linear probe. Then all weights are trained, at a rate chosen for each
        (:mod:`ttca.proxies.finetuning`).
    keep_best : bool
        Whether the epoch is kept that selection people judge best; else the last. Where selection people are not like
        those who are learned from, the best epoch would be one that has not learned yet. Rates of backbones they
        choose in either case.
    epochs, batch_size, learning_rate, weight_decay
        AdamW with a linear warm-up over a tenth of the steps, then a cosine to zero.
    temperature : float
        See :func:`ttca.proxies.distillation.answer_loss`.
    shift : int
        Random translation by up to this many pixels, edges repeated.
    flip : bool
        Random mirror image (wrong for digits and text, right for most photographs).
    warp : float
        Random rotation by up to this many radians, zoom by up to this share, and translation by up to half this share
        of the image. It is for photographs that a platform crops or aligns in its own way. 0 is off.
    mixup : float
        Beta parameter of mixup between complete rows (Zhang et al. 2018, arXiv 1710.09412); 0 is off.
        Rows that are not complete stay as they are.
    precision : {"float32", "bfloat16", "auto"}
        Autocast of the forward pass; auto is bfloat16 where the processor multiplies it in hardware.
    threads : int, optional
        Of the processor, in each process; by default as many as torch takes.
    seed : int
        Same seed, same machine and same number of threads, same weights.

    Raises
    ------
    ValueError
        If an option is out of its range, or nothing goes by the name of an architecture.
    """

    architectures: tuple[Architecture, ...] = ("small-cnn",)
    backbones: tuple[Backbone, ...] = ()
    keep_best: bool = True
    epochs: int = 60
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 5e-2
    temperature: float = 2.0
    shift: int = 1
    flip: bool = False
    warp: float = 0.0
    mixup: float = 0.0
    precision: Precision = "float32"
    threads: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_threads(self.threads)
        for name, least in {"epochs": 1, "batch_size": 2, "shift": 0, "seed": 0}.items():
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                why = " Batch normalization cannot learn from one image." if name == "batch_size" else ""
                raise ValueError(f"Expected {name} as a whole number of at least {least}, got {number!r}.{why}")
        if not self.temperature > 0:
            raise ValueError(f"Expected a temperature above 0, got {self.temperature}.")
        for name in ("mixup", "learning_rate", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                off = "0 (off)" if name == "mixup" else "0"
                raise ValueError(f"Expected {name} as a number of {off} or more, got {getattr(self, name)}.")
        if not 0 <= self.warp < 1:
            raise ValueError(f"Expected a warp in [0, 1), got {self.warp}. 0.15 rotates and zooms the images a little.")
        if self.precision not in get_args(Precision):
            raise ValueError(
                f"Expected precision to be one of {', '.join(get_args(Precision))}, got {self.precision!r}."
            )
        if isinstance(self.architectures, str) or not (self.architectures or self.backbones):
            raise ValueError(
                f"Expected at least one architecture for a proxy, as a tuple of names, got {self.architectures!r}."
            )
        # From here on names alone: what is kept and compared is plain text.
        object.__setattr__(self, "architectures", tuple(architecture_name(a) for a in self.architectures))

    @property
    def identity(self) -> dict[str, Any]:
        """What decides a proxy that is trained so, JSON-able: backbones by their weights, not by where they lie."""
        found = asdict(self)
        # What earlier versions knew nothing of stands in it only where it is used.
        del found["backbones"]
        if self.keep_best:
            del found["keep_best"]
        return found | ({"backbones": [b.identity for b in self.backbones]} if self.backbones else {})
