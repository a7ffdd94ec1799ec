"""Labeling: images that nobody labeled get probabilities from a linear head on a published network's features."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from ttca.proxies.backbones import Backbone
from ttca.proxies.distillation import Answered, Targets, answer_loss
from ttca.proxies.finetuning import adapt_statistics, fit_head
from ttca.proxies.images import to_levels, to_tensor
from ttca.proxies.pretrained import Pretrained, create_pretrained
from ttca.proxies.runtime import fixed_threads

__all__ = ["create_labeler", "label_images"]

#: As a proxy learns from complete answers.
_TEMPERATURE = 2.0
#: Pixels of a batch, as many as 512 images of 32×32 have.
_PIXELS = 2**19


def create_labeler(backbone: Backbone, *, classes: int) -> Pretrained:
    """Return a network under a new head for so many classes; images are resized to the side that it was made for.

    Raises
    ------
    ValueError
        As :func:`ttca.proxies.pretrained.create_pretrained`.
    """
    return create_pretrained(replace(backbone, fixed=backbone.side is not None), classes=classes, seed=0)


def label_images(
    images: NDArray[np.uint8],
    known: Answered,
    judged: Answered,
    backbones: Sequence[Backbone],
    *,
    device: str = "cpu",
    threads: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[NDArray[np.float32], int, float]:
    """Label images by a head that is fit on others, on the features of the backbone whose head judges like best.

    Parameters
    ----------
    images : uint8 array, shape (N, H, W, 3)
    known : (images, Targets)
        What the head is fit on: answers, or true classes. Rows that name no class are left out.
    judged : (images, Targets)
        What chooses the head's penalty and the backbone; nobody of them is learned from.
    backbones : sequence of Backbone
    device : str
    threads : int, optional
        Of the processor.
    progress : callable(images)
        Told of so many images more that were labeled.

    Returns
    -------
    scores : float32 array, shape (N, C)
        Probabilities.
    place : int
        Of the backbone whose head this is.
    agreement : float
        Share of the judged rows on which it names the same class.

    Raises
    ------
    ValueError
        If no row of ``known`` or of ``judged`` names a class, or a backbone cannot be made here.

    Notes
    -----
    *Ours*: a linear probe (Alain & Bengio 2016, arXiv 1610.01644) [published] in the role of the teacher. Whole weights
    are not trained, so a network may be far larger than a proxy that δ is learned against.
    """
    lessons = [_Lesson(*part, device) for part in (known, judged)]
    if not all(len(lesson) for lesson in lessons):
        raise ValueError(
            "Expected people of whom a class is known, to fit a head on and to judge it, got none. Ask more people, or "
            "give some the role selection."
        )
    learned, looked = lessons
    classes = known[1].scores.shape[1]
    best, place, chosen = math.inf, 0, None
    with fixed_threads(threads):
        for i, backbone in enumerate(backbones):
            model = create_labeler(backbone, classes=classes).to(device)
            size = _together(model, images)
            adapt_statistics(model, learned.pixels(size))
            loss = fit_head(model, (learned.pixels(size), learned.loss), (looked.pixels(size), looked.loss))
            if chosen is None or loss < best:
                best, place, chosen = loss, i, model
        if chosen is None:
            raise ValueError("Expected published weights to label images by, got none.")
        size = _together(chosen, images)
        agreement = float((_said(chosen, looked.images, size, device).argmax(1) == looked.labels).mean())
        return _said(chosen, images, size, device, progress), place, agreement


class _Lesson:
    """Images of which a class is known, and the loss of a head's logits about them."""

    def __init__(self, images: NDArray[np.uint8], targets: Targets, device: str) -> None:
        named = targets.labels >= 0
        self.images = images[named]
        self.labels = targets.labels[named]
        self._known = torch.from_numpy(self.labels).to(device), torch.from_numpy(targets.scores[named]).to(device)
        self._device = device

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, size: int) -> Iterator[torch.Tensor]:
        """Yield the images as a network takes them, so many at a time."""
        return _pixels(self.images, size, self._device)

    def loss(self, logits: torch.Tensor) -> torch.Tensor:
        """Return one loss per image, shape (N,)."""
        return answer_loss(logits, *self._known, temperature=_TEMPERATURE)


def _pixels(images: NDArray[np.uint8], size: int, device: str) -> Iterator[torch.Tensor]:
    """Yield images as a network takes them, so many at a time."""
    # Parts of one size: batch normalization cannot learn from an image left over.
    for levels in to_levels(images).tensor_split(max(-(-len(images) // size), 1)):
        yield to_tensor(levels.to(device))


def _together(model: Pretrained, images: NDArray[np.uint8]) -> int:
    """Return how many images go through a network at once: those of photographs would fill the memory."""
    side = model.side or max(images.shape[1:3])
    return max(_PIXELS // side**2, 2)


@torch.inference_mode()
def _said(
    model: Pretrained,
    images: NDArray[np.uint8],
    size: int,
    device: str,
    progress: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float32]:
    """Return a network's probabilities, float32 (N, C)."""
    model.eval()
    said = []
    for batch in _pixels(images, size, device):
        said.append(model(batch).float().softmax(1).cpu())
        progress(len(batch))
    return torch.cat(said).numpy()
