"""A platform in this process: any model, made to answer (or fail to) as an API would."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.errors import AnswerError, ChargeState, ConfigError, ImageError, MissingExtraError, TransportError
from ttca.images import Images, ImageShape, check_images
from ttca.platforms.base import Credential, PlatformInfo

if TYPE_CHECKING:
    import torch

__all__ = ["LocalPlatform", "Model"]

Model = Callable[[Images], NDArray[np.floating]]
"""uint8 images (N, H, W, 3) to probability rows (N, C)."""


class _Who(TypedDict):
    """What every error of one attempt says."""

    platform: str
    request_id: str
    member: str


class LocalPlatform:
    """A model in this process behind the behaviours of an API. Safe to use from many threads if the model is.

    Parameters
    ----------
    model : callable
        uint8 images (N, H, W, 3) to probability rows (N, C).
    classes : sequence of str
    image_shape : (H, W, 3)
    name, version : str
        They are the platform's identity: give another model another name or version, or a ledger takes its
        answers for this one's.
    label_only : bool
        Whether answers carry labels alone.
    top_k : int, optional
        How many of the highest scores an answer names.
    decimals : int, optional
        To how many decimals scores are rounded. Labels are those of the exact scores.
    noise : float
        Standard deviation of Gaussian noise on every log-probability. The same image asked again gets other
        noise; the same seed and history give the same.
    latency_s : float
        Seconds each request takes.
    failure_rate : float
        Share of attempts that fail, half of them before and half after the model has run. Decided by the
        seed, the images and how often they were sent, so concurrency does not change it.
    rate_limit_per_s : float, optional
        Requests per second (a bucket that holds one second's worth, at least one); above it, status 429.
    seed : int
    sleep, clock : callable
        Seconds to wait, and monotonic seconds; tests pass their own.
    max_batch : int

    Raises
    ------
    ConfigError
        If a value is not allowed, or two contradict each other.

    Examples
    --------
    >>> import numpy as np
    >>> bright = lambda x: np.stack([1 - x.mean((1, 2, 3)) / 255, x.mean((1, 2, 3)) / 255], axis=1)
    >>> platform = LocalPlatform(bright, classes=("dark", "bright"), image_shape=(2, 2, 3))
    >>> white = np.full((1, 2, 2, 3), 255, np.uint8)
    >>> platform.attempt(white, Credential("ada"), request_id="1").labels
    array([1])
    """

    def __init__(
        self,
        model: Model,
        *,
        classes: Sequence[str],
        image_shape: ImageShape,
        name: str = "local",
        version: str = "1",
        label_only: bool = False,
        top_k: int | None = None,
        decimals: int | None = None,
        noise: float = 0.0,
        latency_s: float = 0.0,
        failure_rate: float = 0.0,
        rate_limit_per_s: float | None = None,
        seed: int = 0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        max_batch: int = 256,
    ) -> None:
        if isinstance(classes, str) or len(classes) < 2 or len(set(classes)) != len(classes):
            raise ConfigError(f"Expected classes as two or more different names, got {classes!r}. List them.")
        if len(image_shape) != 3 or image_shape[2] != 3 or min(image_shape) < 1:
            raise ConfigError(
                f"Expected image_shape as (height, width, 3), got {image_shape}. Put the three color channels last."
            )
        if label_only and (top_k is not None or decimals is not None):
            raise ConfigError(
                "Expected top_k and decimals only where scores are given, got label_only as well. Leave out one of "
                "the two."
            )
        if top_k is not None and not 1 <= top_k <= len(classes):
            raise ConfigError(
                f"Expected top_k in 1..{len(classes)}, got {top_k}. Leave it out to get the scores of all classes."
            )
        if decimals is not None and not 0 <= decimals <= 12:
            raise ConfigError(f"Expected decimals in 0..12, got {decimals}. Leave it out to get exact scores.")
        if not 0 <= failure_rate <= 1:
            raise ConfigError(f"Expected failure_rate in [0, 1], got {failure_rate}. Give a share, not a percentage.")
        for option, value in (("noise", noise), ("latency_s", latency_s)):
            if not (value >= 0 and np.isfinite(value)):
                raise ConfigError(f"Expected {option} of 0 or more, got {value}. Use 0 for none.")
        if rate_limit_per_s is not None and not rate_limit_per_s > 0:
            raise ConfigError(f"Expected rate_limit_per_s above 0, got {rate_limit_per_s}. Use None for no limit.")
        if max_batch < 1:
            raise ConfigError(f"Expected max_batch of at least 1, got {max_batch}. Use 1 for one image per request.")
        self._model = model
        self._label_only, self._top_k, self._decimals = label_only, top_k, decimals
        self._noise, self._latency_s, self._failure_rate = noise, latency_s, failure_rate
        self._seed, self._sleep, self._clock = seed, sleep, clock
        self._lock = threading.Lock()
        self._asked: Counter[bytes] = Counter()
        self._processed = 0
        self._rate = rate_limit_per_s
        self._tokens = max(1.0, rate_limit_per_s or 0.0)
        self._counted_at = clock()
        # Only what changes an answer: latency and outages do not.
        parameters: dict[str, Any] = {
            "label_only": label_only,
            "top_k": top_k,
            "decimals": decimals,
            "noise": noise,
        }
        if noise:
            parameters["seed"] = seed
        self._info = PlatformInfo(
            name=name,
            classes=tuple(classes),
            image_shape=image_shape,
            identity={
                "protocol": "local",
                "model": name,
                "version": version,
                "parameters": json.dumps(parameters, sort_keys=True),
            },
            max_batch=max_batch,
            gives_scores=not label_only,
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
        version: str | None = None,
        **behaviour: Any,
    ) -> LocalPlatform:
        """Put a torch module behind a platform.

        Parameters
        ----------
        module : torch.nn.Module
            float32 (N, 3, H, W) in [0, 1] to logits (N, C). Moved to ``device`` and set to evaluation mode.
        classes, image_shape
            As for :class:`LocalPlatform`.
        device : str
        batch_size : int
            The most images of one forward pass.
        version : str, optional
            A hash of the weights when None.
        **behaviour
            Every other option of :class:`LocalPlatform`.

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

        return cls(probabilities, classes=classes, image_shape=image_shape, version=version, **behaviour)

    @classmethod
    def from_onnx(
        cls,
        path: str | Path,
        *,
        classes: Sequence[str],
        image_shape: ImageShape,
        batch_size: int = 256,
        version: str | None = None,
        **behaviour: Any,
    ) -> LocalPlatform:
        """Put an ONNX file behind a platform.

        Parameters
        ----------
        path : path
            Its one input is float32 (N, 3, H, W) in [0, 1], its first output logits (N, C).
        classes, image_shape
            As for :class:`LocalPlatform`.
        batch_size : int
            The most images of one run; 1 where the file's batch axis is fixed at 1.
        version : str, optional
            A hash of the file when None.
        **behaviour
            Every other option of :class:`LocalPlatform`.

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
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
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
        return cls(probabilities, classes=classes, image_shape=image_shape, version=version, **behaviour)

    def __repr__(self) -> str:
        return f"LocalPlatform(name={self._info.name!r}, identity={self._info.identity})"

    @property
    def info(self) -> PlatformInfo:
        """Who this platform is."""
        return self._info

    @property
    def resolution(self) -> float:
        """The step to which it rounds its scores, 0 where they are exact."""
        return 0.0 if self._decimals is None else 10.0**-self._decimals

    @property
    def processed(self) -> int:
        """Images the model has run on so far: what a platform's own log would count."""
        with self._lock:
            return self._processed

    def attempt(self, images: Images, credential: Credential, *, request_id: str) -> Answers:
        """Answer once, or fail as a platform would (see :class:`ttca.platforms.base.Platform`)."""
        checked = check_images(images, shape=self._info.image_shape)
        if len(checked) > self._info.max_batch:
            raise ImageError(
                f"Expected at most {self._info.max_batch} images in one request, got {len(checked)}. "
                "Send them in smaller batches."
            )
        who: _Who = {"platform": self._info.name, "request_id": request_id, "member": credential.member}
        if len(checked) == 0:
            return Answers.failed(0, len(self._info.classes))
        self._take_token(who)
        if self._latency_s:
            self._sleep(self._latency_s)
        fate = self._fate(checked)
        if fate < self._failure_rate / 2:
            raise self._outage("Expected an answer, got an outage before the model ran. Try again.", 500, who)
        rows = self._run(checked, who)
        if fate < self._failure_rate:
            raise self._outage("Expected an answer, got a broken connection. Try again.", None, who)
        return self._say(checked, rows)

    def _take_token(self, who: _Who) -> None:
        if self._rate is None:
            return
        with self._lock:
            now = self._clock()
            full = max(1.0, self._rate)
            self._tokens = min(full, self._tokens + (now - self._counted_at) * self._rate)
            self._counted_at = now
            # A caller that waits exactly as told must get through despite rounding.
            if self._tokens >= 1 - 1e-9:
                self._tokens -= 1
                return
            wait = (1 - self._tokens) / self._rate
        raise TransportError(
            f"Expected at most {self._rate:g} requests per second, got more. Wait {wait:.3f} s.",
            charge=ChargeState.REFUNDED,
            retryable=True,
            retry_after=wait,
            status=429,
            **who,
        )

    def _fate(self, images: Images) -> float:
        """Return a number in [0, 1) fixed by the seed, the images and how often they were sent."""
        if not self._failure_rate:
            return 1.0
        (draw,) = np.frombuffer(self._draw(b"fate", images.tobytes())[:8], np.uint64)
        return float(draw) / 2.0**64

    def _draw(self, purpose: bytes, data: bytes) -> bytes:
        """Return 16 bytes, other ones each time the same data comes, whatever happens in between."""
        what = hashlib.blake2b(data, digest_size=16, person=purpose).digest()
        with self._lock:
            times = self._asked[what]
            self._asked[what] += 1
        return hashlib.blake2b(what + f"{self._seed} {times}".encode(), digest_size=16).digest()

    def _outage(self, message: str, status: int | None, who: _Who) -> TransportError:
        return TransportError(message, charge=ChargeState.UNKNOWN, retryable=True, status=status, **who)

    def _run(self, images: Images, who: _Who) -> NDArray[np.float64]:
        rows = np.asarray(self._model(images), np.float64)
        with self._lock:
            self._processed += len(images)
        expected = (len(images), len(self._info.classes))
        if rows.shape != expected:
            raise AnswerError(
                f"Expected the model to give probabilities of shape {expected}, got {rows.shape}. Change the model, or "
                "the list of classes.",
                **who,
            )
        with np.errstate(invalid="ignore"):
            sound = (rows >= -1e-6).all() and (np.abs(rows.sum(axis=1) - 1) <= 1e-3).all()
        if not sound:
            raise AnswerError(
                "Expected the model to give probabilities that add up to 1 in each row, got rows that do not. If the "
                "model gives logits, apply a softmax.",
                **who,
            )
        return np.clip(rows, 0.0, 1.0)

    def _say(self, images: Images, rows: NDArray[np.float64]) -> Answers:
        if self._noise:
            logs = np.log(np.maximum(rows, 1e-12)) + self._noise * np.stack(
                [self._normal(i, rows.shape[1]) for i in images]
            )
            shares = np.exp(logs - logs.max(axis=1, keepdims=True))
            rows = shares / shares.sum(axis=1, keepdims=True)
        labels = rows.argmax(axis=1).astype(np.int64)
        if self._label_only:
            return Answers.from_labels(labels, rows.shape[1])
        scores = rows if self._decimals is None else np.round(rows, self._decimals)
        if self._top_k is not None:
            # A stable sort of the exact scores: ties go to the lower class, as the label does.
            order = np.argsort(-rows, axis=1, kind="stable")
            scores = scores.copy()
            np.put_along_axis(scores, order[:, self._top_k :], np.nan, axis=1)
        exact = Answers.from_scores(scores, resolution=self.resolution)
        return Answers(exact.status, labels, exact.scores, exact.resolution)

    def _normal(self, image: NDArray[np.uint8], classes: int) -> NDArray[np.float64]:
        words = np.frombuffer(self._draw(b"noise", image.tobytes()), np.uint32)
        return np.random.default_rng(words.tolist()).standard_normal(classes)
