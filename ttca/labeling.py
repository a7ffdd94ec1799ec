"""Labeling: public images without classes get some from a linear head on published features, for the warm start."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ttca.asking import Known, Questions, TransferSet
from ttca.errors import ActionError, ConfigError, as_sentence
from ttca.images import Images
from ttca.kept import digest, load_arrays, load_json, save_arrays, save_json
from ttca.learning import targets_of
from ttca.private import private_folder
from ttca.proxies.backbones import Backbone
from ttca.values import Value
from ttca.weights import LABELS
from ttca.workshop import Workshop

if TYPE_CHECKING:
    from ttca.proxies.distillation import Answered

__all__ = ["Labeled", "check_labelers", "labeled", "published"]


@dataclass(frozen=True, eq=False, repr=False)
class Labeled(Value):
    """Public images, and what a head said of them.

    Parameters
    ----------
    images : uint8 array, shape (N, H, W, 3)
        As proxies see them.
    scores : float32 array, shape (N, C)
        Probabilities.
    backbone : Backbone
        On whose features the head stands.
    agreement : float
        Share of selection people for whom the head names the class that it was judged by.
    asked : bool
        Whether it was fit on the platform's answers; else on members' true classes alone.
    commonest : float
        Share of these people who have the class that most have: whoever names it always is right so often.
    """

    images: Images
    scores: NDArray[np.float32]
    backbone: Backbone
    agreement: float
    asked: bool
    commonest: float = 0.0

    @cached_property
    def digest(self) -> str:
        """A SHA-256, 64 hex digits, of images and scores."""
        return _hashed(self.images, self.scores)

    @property
    def told(self) -> str:
        """The sentence that says who labeled what, by what."""
        b, of = self.backbone, "the platform's answers" if self.asked else "members' true classes"
        said = (
            f"{len(self.images):,} public images without classes were labeled by a linear head on {b.name} "
            f"({b.source}, license: {b.license}), which learned {of}: right for {self.agreement:.0%} of selection "
            "people."
        )
        if self.agreement > self.commonest:
            return said
        return (
            f"{said} Naming the commonest class alone would be right for {self.commonest:.0%}: these labels teach "
            "nothing. Take public out of the action file, or name other published weights in labelers."
        )

    @property
    def shown(self) -> dict[str, str]:
        """What row, report and members' file say of the backbone, and what it was used for."""
        return self.backbone.shown | {"labeled": self.told}


def labeled(shop: Workshop, known: Known, questions: Questions, transfer: TransferSet | None) -> Known:
    """Return what is known, with labels for public images that had no class; labels are made, or read back.

    Parameters
    ----------
    shop : Workshop
    known : Known
    questions : Questions
    transfer : TransferSet or None
        What was said of images as they are; altered copies are left out. None, or one of nobody: the head learns from
        the true classes in ``known`` alone, as a control that asks nothing does.

    Raises
    ------
    ActionError
        If nobody was answered.
    ConfigError
        If no published weights are here.
    """
    images = known.unlabeled
    if images is None:
        return known
    learner = shop.learner
    taught: list[Answered] = []
    judged = learner.seen(questions.judges.images), learner.true(questions.judges)
    plain = 0 if transfer is None else max(len(transfer.pool) - transfer.altered, 0)
    if transfer is not None and plain:
        taught.append((learner.seen(transfer.pool.images[:plain]), targets_of(transfer.answers[:plain])))
        if not transfer.equalized:
            judged = learner.seen(transfer.selection.images), targets_of(transfer.selection_answers)
    if known.public is not None:
        taught.append((known.public.images, learner.true(known.public)))
    made = _kept_or_made(shop, images, _joined(taught), judged)
    labels = judged[1].labels[judged[1].labels >= 0]
    found = Labeled(images, *made, asked=plain > 0, commonest=float(np.bincount(labels).max() / len(labels)))
    if shop.tells:
        shop.reporter.say(found.told)
    return replace(known, labeled=found)


def check_labelers(shop: Workshop) -> None:
    """Say what can label; raise where no published weights are here, or their networks do not take such images.

    Raises
    ------
    ConfigError
        Before any query was spent.
    """
    import torch

    from ttca.proxies.labeling import create_labeler

    side = shop.settings.block
    height, width, _ = shop.info.image_shape
    blank = torch.zeros(2, 3, height // side, width // side)
    for backbone in shop.labelers:
        try:
            with torch.inference_mode():
                create_labeler(backbone, classes=len(shop.info.classes)).eval()(blank)
        except Exception as error:  # whatever a network that somebody published raises
            raise ConfigError(
                f"Expected a network that labels public images of {height // side}×{width // side} pixels, got "
                f"{backbone.name}, which fails: {as_sentence(error)} Name others in labelers. No query was spent."
            ) from error
    names = " or ".join(f"{b.name} ({b.source}, license: {b.license})" for b in shop.labelers)
    shop.reporter.say(f"Public images without classes will be labeled by a linear head on {names}.")


def published(known: Known, own: Sequence[Backbone]) -> list[dict[str, str]]:
    """Return what is said of published weights: of those that a proxy began with, and of those that labeled images."""
    return [*(b.shown for b in own), *([] if known.labeled is None else [known.labeled.shown])]


def _kept_or_made(
    shop: Workshop, images: Images, known: Answered, judged: Answered
) -> tuple[NDArray[np.float32], Backbone, float]:
    """Return scores, backbone and agreement: read back where they were made from the same."""
    from ttca.proxies.labeling import label_images
    from ttca.proxies.runtime import best_device

    labelers = shop.labelers
    facts = [[b.identity, b.side] for b in labelers]
    inputs = digest("labels", _hashed(images), *(_hashed(x, t.labels, t.scores) for x, t in (known, judged)), facts)
    # Candidates, their halves and controls that would make the same share a file.
    path = private_folder(shop.home / LABELS) / f"{inputs[:16]}.safetensors"
    stored, beside = load_arrays(path, inputs, ("scores",)), path.with_suffix(".json")
    said = load_json(beside) if stored is not None and beside.is_file() else {}
    if stored is None or said.get("inputs") != inputs:
        with shop.reporter.track("labeling public images", len(images), unit="images") as advance:
            try:
                scores, place, agreement = label_images(
                    images, known, judged, labelers,
                    device=best_device(), threads=shop.settings.threads, progress=advance,
                )  # fmt: skip
            except ValueError as error:
                raise ActionError(str(error)) from None
        stored = {"scores": scores}
        said = {"inputs": inputs, "place": place, "agreement": agreement, "labelers": [b.to_dict() for b in labelers]}
        save_arrays(path, stored, inputs)
        save_json(beside, said)
    return stored["scores"], labelers[said["place"]], float(said["agreement"])


def _joined(parts: Sequence[Answered]) -> Answered:
    from ttca.proxies.distillation import Targets

    images, targets = zip(*parts, strict=True)
    both = [np.concatenate([getattr(t, name) for t in targets]) for name in ("labels", "scores")]
    return np.concatenate(images), Targets(*both)


def _hashed(*arrays: NDArray[Any]) -> str:
    h = hashlib.sha256()
    for array in arrays:
        h.update(f"{array.dtype}{array.shape}".encode())
        h.update(np.ascontiguousarray(array).view(np.uint8).data)
    return h.hexdigest()
