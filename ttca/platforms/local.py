"""A platform in this process: any model, asked as a platform is."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.errors import AnswerError, ConfigError, MissingExtraError, ModelError, TTCAError, as_sentence
from ttca.images import Images, ImageShape
from ttca.names import check_class_names
from ttca.platforms.base import Credential, PlatformInfo, check_request

if TYPE_CHECKING:
    import torch

__all__ = ["NO_HABITS", "LocalPlatform", "Model"]

Model = Callable[[Images], NDArray[np.floating]]
"""uint8 images (N, H, W, 3) to probability rows (N, C)."""


#: What the identity of a platform without habits has always said of them: kept answers are found by it.
NO_HABITS = json.dumps({"decimals": None, "label_only": False, "noise": 0.0, "top_k": None})


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and int(value) >= 1


class LocalPlatform:
    """A model in this process, as a platform. Safe to use from many threads if the model is.

    It answers at once and with all scores; :class:`~ttca.platforms.habits.WithHabits` gives it, or any other platform,
    the habits of an API.

    Parameters
    ----------
    model : callable
        uint8 images (N, H, W, 3) to probability rows (N, C).
    classes : sequence of str
    image_shape : (H, W, 3)
    name, version : str
        They are the platform's identity: give another model another name or version, or a ledger takes its
        answers for this one's.
    max_batch : int

    Raises
    ------
    ConfigError
        If a value is not allowed.

    Examples
    --------
    >>> import numpy as np
    >>> from ttca.platforms.base import Credential
    >>> bright = lambda x: np.stack([1 - x.mean((1, 2, 3)) / 255, x.mean((1, 2, 3)) / 255], axis=1)
    >>> platform = LocalPlatform(bright, classes=("dark", "bright"), image_shape=(2, 2, 3))
    >>> white = np.full((1, 2, 2, 3), 255, np.uint8)
    >>> platform.attempt(white, Credential("ada"), request_id="1").labels
    array([1])
    >>> platform
    LocalPlatform('local', version '1', 2 classes, 2×2 pixels)
    """

    def __init__(
        self,
        model: Model,
        *,
        classes: Sequence[str],
        image_shape: ImageShape,
        name: str = "local",
        version: str = "1",
        max_batch: int = 256,
    ) -> None:
        names = tuple(classes) if isinstance(classes, Iterable) and not isinstance(classes, str) else ()
        check_class_names(names)
        if len(names) < 2 or len(set(names)) != len(names):
            raise ConfigError(f"Expected classes as two or more different names, got {classes!r}. List them.")
        if not callable(model):
            raise ConfigError(
                "Expected the model as a function from uint8 images to rows of probabilities, got an object of type "
                f"{type(model).__name__}, which cannot be called. Write a function that calls it: of a classifier of "
                "scikit-learn, its predict_proba."
            )
        shape = tuple(image_shape) if isinstance(image_shape, Iterable) else ()
        if len(shape) != 3 or not all(_is_count(side) for side in shape) or shape[2] != 3:
            raise ConfigError(
                f"Expected image_shape as (height, width, 3), got {image_shape!r}. Put the three color channels last."
            )
        if not _is_count(max_batch):
            raise ConfigError(f"Expected max_batch of at least 1, got {max_batch!r}. Use 1 for one image per request.")
        self._model = model
        self._lock = threading.Lock()
        self._processed = 0
        self._info = PlatformInfo(
            name=name,
            classes=names,
            image_shape=image_shape,
            identity={"protocol": "local", "model": name, "version": version, "parameters": NO_HABITS},
            max_batch=max_batch,
        )

    @classmethod
    def from_module(
        cls,
        module: torch.nn.Module,
        *,
        classes: Sequence[str],
        image_shape: ImageShape,
        device: str = "cpu",
        batch_size: int = 256,
        name: str = "local",
        version: str | None = None,
        max_batch: int = 256,
    ) -> LocalPlatform:
        """Put a torch module behind a platform.

        Parameters
        ----------
        module : torch.nn.Module
            float32 (N, 3, H, W) in [0, 1] to logits (N, C). Moved to ``device`` and set to evaluation mode.
        classes, image_shape, name, max_batch
            As for :class:`LocalPlatform`.
        device : str
        batch_size : int
            The most images of one forward pass.
        version : str, optional
            A hash of the weights when None.

        Raises
        ------
        MissingExtraError
            If torch is not installed.
        """
        try:
            import torch

            from ttca.proxies.images import to_levels, to_tensor
        except ImportError:
            raise MissingExtraError("LocalPlatform.from_module", "learn") from None
        if version is None:
            digest = hashlib.sha256()
            for key, weights in sorted(module.state_dict().items()):
                digest.update(key.encode())
                digest.update(weights.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
            version = digest.hexdigest()[:16]
        ready = module.to(device).to(memory_format=torch.channels_last).eval()

        def probabilities(images: Images) -> NDArray[np.float32]:
            rows = []
            with torch.no_grad():
                for start in range(0, len(images), batch_size):
                    levels = to_levels(images[start : start + batch_size], device)
                    rows.append(torch.softmax(ready(to_tensor(levels)).float(), dim=1).cpu().numpy())
            return np.concatenate(rows)

        return cls(
            probabilities,
            classes=classes,
            image_shape=image_shape,
            name=name,
            version=version,
            max_batch=max_batch,
        )

    @classmethod
    def from_onnx(
        cls,
        path: str | Path,
        *,
        classes: Sequence[str],
        image_shape: ImageShape,
        batch_size: int = 256,
        name: str = "local",
        version: str | None = None,
        max_batch: int = 256,
        threads: int | None = None,
    ) -> LocalPlatform:
        """Put an ONNX file behind a platform.

        Parameters
        ----------
        path : path
            Its one input is float32 (N, 3, H, W) in [0, 1], its first output logits (N, C).
        classes, image_shape, name, max_batch
            As for :class:`LocalPlatform`.
        batch_size : int
            The most images of one run; 1 where the file's batch axis is fixed at 1.
        version : str, optional
            A hash of the file when None.
        threads : int, optional
            That it computes with; default as many as there are cores. Several platforms on one machine wait for each
            other's threads: give each its share.

        Raises
        ------
        MissingExtraError
            If onnxruntime is not installed.
        ConfigError
            If the file cannot be read, or its input is another.
        """
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtraError("LocalPlatform.from_onnx", "serve") from None
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(f"Expected an ONNX file at {path}, got: {error.strerror}. Check the path.") from None
        try:
            options = onnxruntime.SessionOptions()
            # 0: as many as there are cores.
            options.intra_op_num_threads = threads or 0
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has no public root of its errors.
            raise ConfigError(
                f"Expected an ONNX file at {path}, got a file that onnxruntime cannot load: {error}"
            ) from None
        inputs = session.get_inputs()
        height, width, _ = image_shape
        shape = list(inputs[0].shape)
        fits = len(shape) == 4 and all(
            not isinstance(said, int) or said == wanted
            for said, wanted in zip(shape[1:], (3, height, width), strict=True)
        )
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or not fits:
            raise ConfigError(
                f"Expected one float32 input (N, 3, {height}, {width}), got "
                f"{[(i.name, i.type, i.shape) for i in inputs]}. Export the model with that input."
            )
        outputs = session.get_outputs()[0].shape
        if outputs and isinstance(outputs[-1], int) and outputs[-1] != len(classes):
            raise ConfigError(
                f"Expected one class name for each of the model's {outputs[-1]} outputs, got {len(classes)} names. "
                "Give all of them, in the order of the outputs."
            )
        step = shape[0] if isinstance(shape[0], int) else batch_size
        if step != 1 and isinstance(shape[0], int):
            raise ConfigError(
                f"Expected a batch axis of any size or of size 1, got size {step}. Export the model with a dynamic "
                "batch axis."
            )

        def probabilities(images: Images) -> NDArray[np.float64]:
            rows = []
            for start in range(0, len(images), step):
                pixels = images[start : start + step].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
                rows.append(session.run(None, {inputs[0].name: np.ascontiguousarray(pixels)})[0])
            logits = np.concatenate(rows).astype(np.float64)
            shares = np.exp(logits - logits.max(axis=1, keepdims=True))
            total: NDArray[np.float64] = shares / shares.sum(axis=1, keepdims=True)
            return total

        version = hashlib.sha256(content).hexdigest()[:16] if version is None else version
        return cls(
            probabilities,
            classes=classes,
            image_shape=image_shape,
            name=name,
            version=version,
            max_batch=max_batch,
        )

    def __repr__(self) -> str:
        info = self._info
        who = f"{info.name!r}, version {info.identity['version']!r}"
        return f"LocalPlatform({who}, {len(info.classes)} classes, {info.image_shape[0]}×{info.image_shape[1]} pixels)"

    @property
    def info(self) -> PlatformInfo:
        """Who this platform is."""
        return self._info

    @property
    def processed(self) -> int:
        """Images the model has run on so far: what a platform's own log would count."""
        with self._lock:
            return self._processed

    def attempt(self, images: Images, credential: Credential, *, request_id: str) -> Answers:
        """Answer once (see :class:`ttca.platforms.base.Platform`).

        Raises
        ------
        ImageError
            If the images are not as the platform takes them.
        ModelError
            If the model raised an error of its own: nothing was answered.
        AnswerError
            If what the model gave are no probabilities.
        """
        return self.attempt_exactly(check_request(images, self._info), credential, request_id=request_id)[0]

    def attempt_exactly(
        self, images: Images, credential: Credential, *, request_id: str
    ) -> tuple[Answers, NDArray[np.float64]]:
        """Answer once, and return beside the answers the scores (N, C) in the precision in which labels were decided.

        Whoever rounds or disturbs the scores as an API would starts from these, with images that they have checked
        (:func:`~ttca.platforms.base.check_request`). Errors as for :meth:`attempt`.
        """
        classes = len(self._info.classes)
        rows = self._run(images, credential, request_id) if len(images) else np.empty((0, classes))
        said = Answers.from_scores(rows)
        labels = rows.argmax(axis=1).astype(np.int64)
        return Answers(said.status, labels, said.scores, said.resolution), rows

    def _run(self, images: Images, credential: Credential, request_id: str) -> NDArray[np.float64]:
        try:
            rows = np.asarray(self._model(images), np.float64)
        except TTCAError:
            raise
        except Exception as error:
            raise ModelError(
                f"Expected probabilities from the model {self._info.name}, got "
                f"{as_sentence(f'{type(error).__name__}: {error}')} Nothing was answered. Correct the model, and ask "
                "again.",
                platform=self._info.name,
                request_id=request_id,
                member=credential.member,
            ) from error
        with self._lock:
            self._processed += len(images)
        expected = (len(images), len(self._info.classes))
        if rows.shape != expected:
            raise self._unreadable(
                f"Expected the model to give probabilities of shape {expected}, got {rows.shape}. Change the model, or "
                "the list of classes.",
                credential,
                request_id,
            )
        if not np.isfinite(rows).all():
            raise self._unreadable(
                "Expected the model to give probabilities that add up to 1 in each row, got NaN or infinity among "
                "them. Correct the model, or its weights.",
                credential,
                request_id,
            )
        with np.errstate(invalid="ignore"):
            sound = (rows >= -1e-6).all() and (np.abs(rows.sum(axis=1) - 1) <= 1e-3).all()
        if not sound:
            raise self._unreadable(
                "Expected the model to give probabilities that add up to 1 in each row, got rows that do not. If the "
                "model gives logits, apply a softmax.",
                credential,
                request_id,
            )
        return np.clip(rows, 0.0, 1.0)

    def _unreadable(self, sentence: str, credential: Credential, request_id: str) -> AnswerError:
        return AnswerError(sentence, platform=self._info.name, request_id=request_id, member=credential.member)
