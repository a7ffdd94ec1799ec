"""Settings: everything that decides an action's result, besides its people and its platform, checked at the door."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ttca.errors import ConfigError

__all__ = ["ARCHITECTURES", "TRANSFORMS", "Settings"]

#: The proxies' own names, written here because they must be checked before the first query and without torch.
ARCHITECTURES = (
    "perceptron", "small-cnn", "small-mobilenet", "small-resnet", "small-resnet-stem2",
    "resnet20", "resnet32", "resnet56",
)  # fmt: skip
#: The input transformations' own names, for the same reason.
TRANSFORMS = ("resize", "blur", "jpeg")
#: What every generator of random numbers takes, with room for an ensemble's further seeds.
_LARGEST_SEED = 2**32 - 1
#: Ten years.
_MOST_DAYS = 3650


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides an action's result, besides its people and its platform.

    Parameters
    ----------
    name, subgroup : str
        What the action is called, and whom it is for.
    epsilons : tuple of int
        The family of budgets, in levels of 255, fixed before verification.
    seed : int
    architectures : tuple of str
        The proxy's models (``small-cnn``, ``resnet20`` …, ``timm/NAME``); more than one make an ensemble.
    epochs : int
        Of distillation.
    shift : int
        Augmentation: random translation of the learning images, in pixels.
    flip : bool
        Augmentation: random mirror images, of proxies' and of δ's learning images.
    warp : float
        Augmentation: random rotation, zoom and translation (:func:`ttca.proxies.distillation.distil`), 0 = off.
    mixup : float
        Beta parameter of mixup between fully scored answers, 0 = off.
    block : int
        Side of the squares, in pixels, within which δ is constant; proxies see images averaged over them. 1 gives
        every pixel its own level. A coarse δ survives a platform that resizes, and is learned block² times faster.
    true_classes : bool
        The proxy learns from members' own true classes, as it would from public data, before it learns from answers.
    equalise : bool
        Give the subgroup's pool images the mean spectrum of the volunteers' (:class:`ttca.equaliser.Equaliser`)
        before the platform is asked about them and the proxy learns from them: where a camera is the difference, the
        proxy then learns from what the platform was trained on. δ is learned on the images as they are.
    precision : {"float32", "bfloat16", "auto"}
        In which proxies and δ are learned; auto is bfloat16 where the processor has it.
    processes : int
        Processes that train a proxy together, through accelerate: one per GPU on a machine with several. Everything
        else is computed in one process, on a GPU where there is one.
    public_epochs : int
        Of learning from true classes, of public labelled data or of members.
    rounds : int
        How often altered copies are asked about. 0: every pool person is asked about the image as it is.
    altered : float
        Share of the subgroup's pool people who are asked about an altered copy instead, shared out over the rounds.
    refine : float
        Share of pool people whose query is saved for the end, when the platform itself is asked in what coarse
        directions δ should move (:mod:`ttca.attacks.refinement`), and selection people say whether that helped.
        0: none; 1: all, where true classes are known to learn a proxy from.
    loss : {"margin", "cross-entropy"}
        What δ minimises (:func:`ttca.attacks.universal.learn_universal`).
    transforms : tuple of str
        Random input transformations while δ is learned, among ``resize``, ``blur`` and ``jpeg``.
    steps : int
        Of perturbation learning, per ε.
    alpha : float
        Error of the certificate.
    goal : "parity", "improvement" or float
        What the certificate must show (:func:`ttca.certificates.certify`).
    valid_days : int
        How long members may rely on the certificate, in days from verification: a platform changes, and the
        certificate speaks of the one that was asked.
    controls : bool
        Whether ``run`` pays for the controls of the honest row on verification people.
    """

    name: str = "action"
    subgroup: str = "subgroup"
    epsilons: tuple[int, ...] = (2, 4, 8)
    seed: int = 0
    architectures: tuple[str, ...] = ("small-cnn",)
    epochs: int = 60
    shift: int = 1
    flip: bool = False
    warp: float = 0.0
    mixup: float = 0.0
    block: int = 1
    true_classes: bool = False
    equalise: bool = False
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    processes: int = 1
    public_epochs: int = 10
    rounds: int = 0
    altered: float = 0.5
    refine: float = 0.0
    loss: Literal["margin", "cross-entropy"] = "margin"
    transforms: tuple[str, ...] = ()
    steps: int = 100
    alpha: float = 0.05
    goal: Literal["parity", "improvement"] | float = "parity"
    valid_days: int = 90
    controls: bool = True

    def __post_init__(self) -> None:
        wrong = [e for e in self.epsilons if isinstance(e, bool) or not isinstance(e, int) or not 1 <= e <= 127]
        if not self.epsilons or wrong or len(set(self.epsilons)) != len(self.epsilons):
            raise ConfigError(
                f"Expected epsilons as different whole levels in 1..127, got {list(self.epsilons)}. "
                "ε counts pixel levels of 255: 8 is a faint change, 32 a visible one."
            )
        for name, least in {
            "epochs": 1,
            "steps": 1,
            "shift": 0,
            "seed": 0,
            "block": 1,
            "processes": 1,
            "public_epochs": 1,
            "rounds": 0,
            "valid_days": 1,
        }.items():
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise ConfigError(f"Expected {name} as a whole number of at least {least}, got {number!r}.")
        if self.valid_days > _MOST_DAYS:
            raise ConfigError(
                f"Expected valid_days of at most {_MOST_DAYS}, got {self.valid_days}. Platforms change within months; "
                "the default is 90."
            )
        if self.seed > _LARGEST_SEED:
            raise ConfigError(f"Expected a seed of at most {_LARGEST_SEED}, got {self.seed}. Choose a smaller one.")
        if not 0 <= self.mixup < math.inf:
            raise ConfigError(f"Expected mixup as a number of 0 (off) or more, got {self.mixup}.")
        if not 0 <= self.warp < 1:
            raise ConfigError(
                f"Expected a warp in [0, 1), got {self.warp}. 0.15 rotates and zooms the images a little."
            )
        if not 0 < self.altered <= 1:
            raise ConfigError(
                f"Expected altered as a share in (0, 1], got {self.altered}. To ask about no altered copies, set "
                "rounds = 0."
            )
        if not 0 <= self.refine <= 1:
            raise ConfigError(f"Expected refine as a share in [0, 1], got {self.refine}. 0.2 saves every fifth query.")
        for name, known in {"precision": ("float32", "bfloat16", "auto"), "loss": ("margin", "cross-entropy")}.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"Expected {name} to be one of {', '.join(known)}, got {getattr(self, name)!r}.")
        if not self.architectures:
            raise ConfigError("Expected at least one proxy architecture, got none.")
        unknown = [a for a in self.architectures if a not in ARCHITECTURES and not a.startswith("timm/")]
        if unknown:
            raise ConfigError(
                f"Expected each proxy architecture to be one of {', '.join(ARCHITECTURES)} or timm/NAME, got "
                f"{unknown[0]!r}."
            )
        strange = [t for t in self.transforms if t not in TRANSFORMS]
        if strange:
            raise ConfigError(f"Expected each transform to be one of {', '.join(TRANSFORMS)}, got {strange[0]!r}.")
        if not 0 < self.alpha < 1:
            raise ConfigError(f"Expected alpha strictly between 0 and 1, got {self.alpha}. 0.05 means 95 %.")
        named = self.goal in ("parity", "improvement")
        if not named and (isinstance(self.goal, str | bool) or not 0 < self.goal < 1):
            raise ConfigError(
                "Expected the goal 'parity', 'improvement' or a success rate strictly between 0 and 1, got "
                f"{self.goal!r}."
            )
