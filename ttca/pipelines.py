"""A transform for image pipelines, torchvision's among them: what goes on is the image with the δ of its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ttca.data.photographs import upright
from ttca.errors import ConfigError, ImageError
from ttca.perturbations import PerturbationSet
from ttca.values import Value

__all__ = ["PerturbationTransform"]

_TENSORS = ("torch", "torchvision")


@dataclass(frozen=True, eq=False, repr=False)
class PerturbationTransform(Value):
    """Apply a set within a pipeline: ``transform(image)`` for one class, ``transform(image, target)`` for labeled data.

    Takes PIL images, uint8 arrays (h, w, 3) and uint8 tensors (3, h, w), and returns what it was given, at the set's
    size. Put it before anything that makes floats.

    Parameters
    ----------
    perturbations : PerturbationSet
        One that may be used (:func:`ttca.members_set.check_usable`).
    label : str or int, optional
        The true class of every image. Without it each image comes with its target, and both are returned: as a data
        set's ``transforms``, or in ``torchvision.transforms.v2``.
    classes : sequence of str, optional
        Names of the targets 0, 1, …; without them a number is the set's own.

    Raises
    ------
    ConfigError, PerturbationError
        If both or neither could say a class, or a class is none of the set's.

    Examples
    --------
    >>> import numpy as np
    >>> from ttca import PerturbationSet, PerturbationTransform
    >>> made = PerturbationSet(np.full((2, 1, 1, 3), 4, np.int8), 4, ("cat", "dog"), "people", "f")
    >>> PerturbationTransform(made, "cat")(np.zeros((1, 1, 3), np.uint8)).tolist()
    [[[4, 4, 4]]]
    """

    perturbations: PerturbationSet
    label: str | int | None = None
    classes: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.label is not None and self.classes is not None:
            raise ConfigError("Expected a label, or the classes of targets, got both. Leave one out.")
        if isinstance(self.label, str):
            self.perturbations.class_index(self.label)
        for name in self.classes or ():
            self.perturbations.class_index(name)

    def __call__(self, image: Any, target: Any = None) -> Any:
        """Return the image with δ; with a target, both.

        Raises
        ------
        ConfigError
            If nobody said the image's class, or two did.
        ImageError, DataError
            If the image is none of the kinds above, or does not fit.
        """
        if (self.label is None) == (target is None):
            raise ConfigError(
                "Expected a label of the transform, or a target beside each image, got "
                f"{'neither' if target is None else 'both'}. Give one of them."
            )
        if self.label is not None:
            return self._changed(image, self.label)
        return self._changed(image, self._class_of(target)), target

    def _class_of(self, target: Any) -> str | int:
        said = target.item() if hasattr(target, "item") else target
        if isinstance(said, str):
            return said
        if isinstance(said, bool) or not isinstance(said, int):
            raise ConfigError(f"Expected a target as a class number or name, got {type(said).__name__}.")
        if self.classes is None:
            return said
        if not 0 <= said < len(self.classes):
            raise ConfigError(f"Expected a target in 0..{len(self.classes) - 1}, got {said}.")
        return str(self.classes[said])

    def _changed(self, image: Any, label: str | int) -> Any:
        if isinstance(image, Image.Image):
            return Image.fromarray(self.perturbations.apply(upright(image).pixels, label))
        if isinstance(image, np.ndarray):
            return self.perturbations.apply(image, label)
        if type(image).__module__.partition(".")[0] in _TENSORS and hasattr(image, "permute"):
            return self._tensor(image, label)
        raise ImageError(
            f"Expected a PIL image, a uint8 array (h, w, 3) or a uint8 tensor (3, h, w), got {type(image).__name__}."
        )

    def _tensor(self, image: Any, label: str | int) -> Any:
        import torch

        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
            raise ImageError(
                f"Expected a uint8 tensor (3, h, w), got {image.dtype} {tuple(image.shape)}. Put the transform before "
                "what makes floats or batches, such as ToTensor, ToDtype or Normalize."
            )
        changed = self.perturbations.apply(image.permute(1, 2, 0).cpu().numpy(), label)
        return torch.from_numpy(np.ascontiguousarray(changed.transpose(2, 0, 1))).to(image.device)
