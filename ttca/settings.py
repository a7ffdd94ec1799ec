"""Settings: everything that decides an action's result, besides its people and its platform, checked at the door."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar

from ttca.attacks.options import Perturbing, check_attack
from ttca.errors import ConfigError
from ttca.goals import Certifying
from ttca.proxies.options import Distilling
from ttca.proxies.registry import Architecture, check_importable
from ttca.recipes import NAMED, RECIPE_KEYS

__all__ = ["DEFAULT_ARCHITECTURES", "Settings"]

#: What gives way to published weights, where there are any.
DEFAULT_ARCHITECTURES = ("small-cnn",)

Options = TypeVar("Options", Distilling, Perturbing, Certifying)

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
    recipe : str
        ``manual``: what the settings below say. ``auto``: candidates of several recipes are learned and race on the
        platform, and what is set by hand holds for all of them (:mod:`ttca.recipes`). Or the name of one recipe.
    pinned : tuple of str
        Settings of learning that hold for every candidate though they have their default. Others that are set by hand
        show it by their value; of an action file, all that stands in it is set by hand.
    left_out : tuple of str
        Recipes, and published weights by their name, that do not race.
    race_share : float
        Share of the queries before verification that pays for the race.
    most_minutes : int
        How long learning the candidates may take, by an estimate. What does not fit does not race.
    architectures : tuple of str or callable
        The proxy's models (``small-cnn``, ``resnet20`` …, ``timm/NAME``, ``module:function`` for one of your own);
        more than one make an ensemble. In Python also functions or classes that take (classes, seed).
    weights : tuple of str or str
        Published weights that the proxy begins with; several make an ensemble. ``hub``: timm's own, from the hub's
        cache or downloaded, for each ``timm/NAME`` of the architectures. Else paths of ``.safetensors`` or ``.onnx``
        files, or names that ``ttca weights list`` shows. ``none``: none at all. By default what is here and suits the
        images: in the folder that ``TTCA_WEIGHTS`` names, in installed packages, and in the hub's cache. The default
        architecture gives way to them; of others, those begin with weights that these fit.
    epochs : int
        Of distillation.
    shift : int
        Augmentation: random translation of the learning images, in pixels.
    flip : bool
        Augmentation: random mirror images, of proxies' and of δ's learning images.
    warp : float
        Augmentation: random rotation, zoom and translation (:class:`ttca.proxies.options.Distilling`), 0 = off.
    mixup : float
        Beta parameter of mixup between fully scored answers, 0 = off.
    block : int
        Side of the squares, in pixels, within which δ is constant; proxies see images averaged over them. 1 gives
        every pixel its own level. A coarse δ survives a platform that resizes, and is learned block² times faster.
    true_classes : bool
        The proxy learns from members' own true classes, as it would from public data, before it learns from answers.
    equalise : bool
        Give the subgroup's pool images the mean spectrum of the volunteers' (:class:`ttca.equaliser.Equaliser`)
        before the platform is asked about them and the proxy learns from them. Where a camera is the difference, the
        proxy then learns from what the platform was trained on. δ is learned on the images as they are.
    precision : {"float32", "bfloat16", "auto"}
        In which proxies and δ are learned; auto is bfloat16 where the processor has it.
    threads : int, optional
        Of the processor, while proxies and δ are learned. By default as many as torch takes, which makes results
        depend on the machine: sums are added up in another order, and the last digits differ.
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
    loss : {"margin", "cross-entropy", "logit"}
        What δ minimises (:class:`ttca.attacks.options.Perturbing`).
    kappa : float
        Of the margin: an image that wins by so much pulls no more.
    transforms : tuple of str
        Random input transformations while δ is learned, among ``resize``, ``blur`` and ``jpeg``.
    steps : int
        Of perturbation learning, per ε.
    attack : str
        Name of an attack that an installed package offers, instead of ttca's own (entry-point group ``ttca.attacks``).
    alpha, goal, within, accuracy_ratio, stopping, every_image
        How the certificate is made (:class:`ttca.goals.Certifying`).
    control_lengths : tuple of float
        Training lengths of the zero-query control, as multiples of the action's own. Selection people choose the best
        of them on the platform, at one query each and length; with one length alone nobody is asked.
    controls_people : int
        On how many verification people of each group, at most, the row and its controls are measured.
    recheck_people : int
        How many verification people, at most, are asked twice more once a set is certified, so that ``ttca recheck``
        can later tell whether the platform still answers as it did (:mod:`ttca.recheck`); 0 for nobody.
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
    recipe: str = "manual"
    pinned: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    race_share: float = 0.2
    most_minutes: int = 60
    architectures: tuple[Architecture, ...] = DEFAULT_ARCHITECTURES
    weights: str | tuple[str, ...] = ()
    epochs: int = 60
    shift: int = 1
    flip: bool = False
    warp: float = 0.0
    mixup: float = 0.0
    block: int = 1
    true_classes: bool = False
    equalise: bool = False
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    threads: int | None = None
    processes: int = 1
    public_epochs: int = 10
    rounds: int = 0
    altered: float = 0.5
    refine: float = 0.0
    loss: Literal["margin", "cross-entropy", "logit"] = "margin"
    kappa: float = 4.0
    transforms: tuple[str, ...] = ()
    steps: int = 100
    attack: str = ""
    alpha: float = 0.05
    goal: Literal["parity", "improvement"] | float = "parity"
    within: float | None = None
    accuracy_ratio: float | None = None
    stopping: Literal["curtailed", "anytime", "hybrid"] = "curtailed"
    every_image: bool = False
    control_lengths: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    controls_people: int = 100
    recheck_people: int = 60
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
            "seed": 0,
            "block": 1,
            "processes": 1,
            "public_epochs": 1,
            "rounds": 0,
            "valid_days": 1,
            "controls_people": 1,
            "recheck_people": 0,
            "most_minutes": 1,
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
        if not 0 < self.altered <= 1:
            raise ConfigError(
                f"Expected altered as a share in (0, 1], got {self.altered}. To ask about no altered copies, set "
                "rounds = 0."
            )
        if not 0 <= self.refine <= 1:
            raise ConfigError(f"Expected refine as a share in [0, 1], got {self.refine}. 0.2 saves every fifth query.")
        self._check_recipe()
        _ = self.certifying
        object.__setattr__(self, "weights", _words(self.weights))
        lengths = self.control_lengths if isinstance(self.control_lengths, tuple | list) else ()
        numbers = all(not isinstance(x, bool) and isinstance(x, int | float) and 0 < x <= 100 for x in lengths)
        if not lengths or not numbers or len(set(lengths)) != len(lengths) or 1 not in lengths:
            raise ConfigError(
                "Expected control_lengths as different multiples up to 100, with 1 among them, got "
                f"{self.control_lengths!r}. The default is [0.5, 1, 2, 4]."
            )
        try:
            # Each checks its own options.
            names = self.distilling.architectures
            if self.processes > 1:
                check_importable(names)
            if self.attack:
                check_attack(self.attack)
            _ = self.perturbing
        except ValueError as error:
            raise ConfigError(str(error)) from None
        object.__setattr__(self, "architectures", names)

    def _check_recipe(self) -> None:
        if self.recipe not in ("auto", "manual", *NAMED):
            raise ConfigError(
                f'Expected recipe as "auto", "manual" or one of {", ".join(NAMED)}, got {self.recipe!r}. "auto" lets '
                "several race."
            )
        if not 0 < self.race_share < 1:
            raise ConfigError(
                f"Expected race_share as a share in (0, 1), got {self.race_share}. 0.2 spends every fifth query."
            )
        unknown = sorted(set(self.pinned) - set(RECIPE_KEYS))
        if unknown:
            raise ConfigError(f"Expected pinned to name settings of learning, got {unknown[0]!r}. See docs/recipes.md.")
        if not (0 <= self.kappa < math.inf):
            raise ConfigError(f"Expected kappa as a number of 0 or more, got {self.kappa}.")

    @property
    def races(self) -> bool:
        """Whether several recipes race."""
        return self.recipe == "auto"

    @property
    def set_by_hand(self) -> frozenset[str]:
        """The settings of learning that no recipe changes."""
        own = {f.name for f in fields(self) if f.name in RECIPE_KEYS and getattr(self, f.name) != f.default}
        return frozenset(own | set(self.pinned))

    @property
    def distilling(self) -> Distilling:
        """How a proxy learns from answers."""
        return self._shared(Distilling)

    @property
    def tuning(self) -> Distilling:
        """How a proxy that knows public data learns from answers, which are few and must not wash that out."""
        return replace(self.distilling, learning_rate=1e-3)

    @property
    def warming(self) -> Distilling:
        """How a proxy learns from true classes of public data, which are many and clean, and never mixed."""
        return replace(self.distilling, epochs=self.public_epochs, batch_size=128, learning_rate=4e-3, mixup=0.0)

    @property
    def perturbing(self) -> Perturbing:
        """How δ is learned: steps count for more than images per step."""
        return replace(self._shared(Perturbing), batch_size=128)

    @property
    def certifying(self) -> Certifying:
        """How the certificate is made."""
        return self._shared(Certifying)

    def _shared(self, kind: type[Options]) -> Options:
        """Return options with every field that the settings have by the same name."""
        given: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(kind) if hasattr(self, f.name)}
        return kind(**given)


def _words(weights: Any) -> tuple[str, ...]:
    words = (weights,) if isinstance(weights, str) else tuple(weights) if isinstance(weights, tuple | list) else (None,)
    alone = "none" in words and len(words) > 1
    if alone or len(set(words)) != len(words) or not all(isinstance(w, str) and w.strip() for w in words):
        raise ConfigError(
            f'Expected weights as different paths or names, or as "hub" or "none", got {weights!r}. Leave them out to '
            "use what is here."
        )
    return words
