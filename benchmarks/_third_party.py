"""Platforms that others made, each in a process of its own on loopback, asked as any platform behind HTTP is.

Nothing of them lies in our environment: ``python -m benchmarks tracks --install`` puts them into the cache, and
opening a platform does so where that was not done.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks._peers import node_packages, packages
from benchmarks._processes import started, started_in_node
from ttca.answers import Answers
from ttca.images import Images
from ttca.platforms.base import OPTIONAL_MEMBERS, Credential, Platform, PlatformInfo
from ttca.platforms.http import HttpPlatform, Transport

__all__ = [
    "DIGIT_RECOGNIZER",
    "DIGIT_SIDE",
    "FACE_API",
    "FACE_SIDE",
    "Packaged",
    "digit_recognizer",
    "face_api",
    "install",
]

#: What npm installs for `fairface-faceapi`: the classifier, the runtime that it asks for, and a reader of PNG files.
FACE_API = (
    "@vladmandic/face-api@1.7.15",
    "@tensorflow/tfjs@4.22.0",
    "@tensorflow/tfjs-backend-wasm@4.22.0",
    "pngjs@7.0.0",
)
#: What pip installs for `digits-thirdparty`; what it needs (torch, torchvision, Pillow, NumPy) we have ourselves.
DIGIT_RECOGNIZER = "digit-recognizer-py==0.1.0"
#: Height and width of the pictures that they take, in pixels.
FACE_SIDE, DIGIT_SIDE = 112, 28
#: Photographs of one request.
_FACES_A_TIME = 16
_HERE = Path(__file__).parent


class Packaged:
    """A platform that is a published package: who it is does not depend on the port at which it answers today.

    Parameters
    ----------
    platform : Platform
        Where it answers. What it has of :data:`~ttca.platforms.base.OPTIONAL_MEMBERS` is passed on.
    package : str
        Name and version.
    """

    def __init__(self, platform: Platform, package: str) -> None:
        self.inner, self._package = platform, package

    def __repr__(self) -> str:
        return f"Packaged({self.inner!r}, {self._package!r})"

    def __getattr__(self, name: str) -> Any:
        if name in OPTIONAL_MEMBERS:
            return getattr(self.inner, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def info(self) -> PlatformInfo:
        """Who this platform is: its package, and how pixels travel to it."""
        info = self.inner.info
        kept = {name: said for name, said in info.identity.items() if name != "url"}
        return replace(info, name=self._package, identity={**kept, "package": self._package}, former_identity=None)

    def attempt(self, images: Images, credential: Credential, *, request_id: str) -> Answers:
        """Ask once (see :class:`ttca.platforms.base.Platform`)."""
        return self.inner.attempt(images, credential, request_id=request_id)


@contextmanager
def face_api() -> Iterator[Packaged]:
    """Start the age-gender network of ``@vladmandic/face-api`` in a Node process, and end it afterwards.

    Raises
    ------
    TTCAError
        If there is no Node, the packages cannot be installed, or it does not start.
    """
    folder = node_packages(*FACE_API)
    with (
        started_in_node("_age_gender_server.mjs", str(folder)) as url,
        HttpPlatform(
            url,
            protocol="template",
            classes=("male", "female"),
            transport=Transport(max_batch=_FACES_A_TIME),
            path="faces",
            send="json",
            body={"images": "{images}"},
            results="faces",
            label="gender",
            scores="scores",
            image_shape=(FACE_SIDE, FACE_SIDE, 3),
        ) as platform,
    ):
        yield Packaged(platform, FACE_API[0])


@contextmanager
def digit_recognizer() -> Iterator[Packaged]:
    """Start the PyPI package ``digit-recognizer-py`` in a process of its own, and end it afterwards.

    Raises
    ------
    TTCAError
        If it cannot be installed or does not start.
    """
    folder = packages(DIGIT_RECOGNIZER)
    variables = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    with (
        started([sys.executable, str(_HERE / "_digit_recognizer_server.py")], variables) as url,
        HttpPlatform(
            url,
            protocol="template",
            classes=tuple("0123456789"),
            path="digits",
            send="png",
            scores="probabilities",
            image_shape=(DIGIT_SIDE, DIGIT_SIDE, 3),
        ) as platform,
    ):
        yield Packaged(platform, DIGIT_RECOGNIZER)


def install() -> dict[str, str]:
    """Install both into the cache, where that was not done, and return their folders by package."""
    return {FACE_API[0]: str(node_packages(*FACE_API)), DIGIT_RECOGNIZER: str(packages(DIGIT_RECOGNIZER))}
