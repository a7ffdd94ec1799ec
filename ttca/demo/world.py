"""The demo's people: handwritten digits, and a bad camera that makes some of them a subgroup."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttca.data.cameras import bad_camera
from ttca.data.digits import load_digits_images
from ttca.images import Images
from ttca.people import People, Roster
from ttca.values import Value

__all__ = ["CAMERA", "DIGITS", "SIZE", "STORY", "DigitsWorld", "digits_world"]

SIZE = 16
#: What the bad camera does: defocus of 2 px, contrast down to 35 % behind a light veil, sensor noise of 6 levels.
CAMERA: dict[str, float] = {"blur": 2.0, "contrast": 0.35, "veil": 60.0, "noise": 6.0}
#: Platform and proxies learn with so many threads, so that another number of cores gives the same row.
THREADS = 2
#: So few of the platform's training images came through such a camera: that is why it serves them badly.
SHARE_IN_TRAINING = 0.03
MEMBERS = 20
#: Pool people who also have a good camera: they show the proxy what the platform does with sharp pictures.
VOLUNTEERS = 60
DIGITS = tuple("0123456789")
STORY = (
    "The platform reads handwritten digits (scikit-learn's, 16×16 pixels). Some people, the subgroup, have a bad "
    "camera. Their pictures are out of focus (Gaussian blur of 2 pixels), pale (contrast cut to 35 % behind a light "
    "veil) and noisy (sensor noise of 6 levels). The platform saw few such pictures in training. Everybody else's "
    "pictures are sharp."
)


@dataclass(frozen=True, eq=False, repr=False)
class DigitsWorld(Value):
    """scikit-learn's 1,797 digits in thirds: who trained the platform, the collective, and the test people."""

    training_images: Images
    training_classes: NDArray[np.int64]
    roster: Roster
    test: People


def digits_world(seed: int, *, size: int = SIZE, margin: int = 0) -> DigitsWorld:
    """Return the demo's people; every image stands for one person, and the camera decides the group.

    Parameters
    ----------
    seed : int
        Of the thirds, and of the camera's noise.
    size, margin : int
        Height and width of a digit, and of the black margin around it, in pixels.
    """
    digits, classes = load_digits_images(size)
    sharp = np.pad(digits, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    blurred = bad_camera(sharp, seed=seed, **CAMERA)
    thirds = np.array_split(np.random.default_rng(seed).permutation(len(classes)), 3)
    training, collective, test = thirds
    few = round(SHARE_IN_TRAINING * len(training))
    images = np.concatenate([blurred[training[:few]], sharp[training[few:]]])

    def members(rows: NDArray[np.intp], *, sharp_too: int) -> People:
        """Return the rows through the bad camera and, of the first ``sharp_too``, a sharp picture as well.

        The reference are the same people with a good camera: then the camera is all that differs.
        """
        persons = np.array([f"person-{i:04d}" for i in rows])
        who = np.array([f"member-{i % MEMBERS + 1:02d}" for i in range(len(rows))])
        bad = People.build(blurred[rows], classes[rows], persons=persons, members=who, subgroup=True)
        few = rows[:sharp_too]
        good = People.build(
            sharp[few], classes[few], persons=persons[:sharp_too], members=who[:sharp_too], subgroup=False
        )
        return People.concatenate([bad, good])

    half = len(collective) // 2
    fifth = (len(collective) - half) // 5
    verification, selection, pool = np.split(collective, [half, half + fifth])
    roster = Roster(
        pool=members(pool, sharp_too=VOLUNTEERS),
        selection=members(selection, sharp_too=len(selection)),
        verification=members(verification, sharp_too=len(verification)),
    )
    return DigitsWorld(images, classes[training], roster, members(test, sharp_too=len(test)))
