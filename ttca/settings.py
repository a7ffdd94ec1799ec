"""Settings: everything that decides an action's result, besides its people and its platform, checked at the door."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import Any, Literal, TypeVar

import numpy as np

from ttca.attacks.options import Perturbing, check_attack
from ttca.errors import ConfigError
from ttca.goals import Certifying
from ttca.proxies.options import Distilling
from ttca.proxies.registry import Architecture, check_importable
from ttca.recipes import NAMED, RECIPE_KEYS
from ttca.renamed import old_parameters

__all__ = ["DEFAULT_ARCHITECTURES", "Settings"]

#: What gives way to published weights, where there are any.
DEFAULT_ARCHITECTURES = ("small-cnn",)

Options = TypeVar("Options", Distilling, Perturbing, Certifying)

#: What every generator of random numbers takes, with room for an ensemble's further seeds.
_LARGEST_SEED = 2**32 - 1
#: What has no effect where no recipes race.
_OF_RACES = ("left_out", "race_share", "most_minutes", "combine")
#: Ten years.
_MOST_DAYS = 3650


@old_parameters(equalise="equalize")
@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides an action's result, besides its people and its platform.

    Parameters
    ----------
    name : str
        What the action is called.
    subgroup : str
        The people who get worse answers, for whom the action is.
    epsilons : tuple of int
        Budgets to try, in pixel levels of 255; the smallest that is certified is used. The family is fixed before
        verification.
    seed : int
        Of everything random.
    goal : {"parity", "improvement"} or float
        "parity", "improvement", or a success rate such as 0.9 (:class:`ttca.goals.Certifying`).
    within : float, optional
        Another goal: at most so far below the reference accuracy.
    accuracy_ratio : float, optional
        Another goal: at least this share of the reference accuracy.
    alpha : float
        The certificate's error: how often such an action may claim its goal wrongly.
    stopping : {"curtailed", "anytime", "hybrid"}
        Ask until the verdict is sure; or "anytime", or "hybrid": see docs/certificates.md.
    every_image : bool
        true: all images of a person count, by an approximate test; false: one of each.
    controls : bool
        Measure the result row and its controls, for queries; false: no row, no report.
    control_lengths : tuple of float
        Training lengths of the control that asks nothing, 1 among them; the best one counts. They are multiples of the
        action's own.
        Selection people choose the best of them on the platform, at one query each and length; with one length alone
        nobody is asked.
    controls_people : int
        The row and its controls are measured on so many people of each group, at most. They are verification people.
    recheck_people : int
        Kept to be asked again later, by ttca recheck; 0: nobody. So many verification people, at most, are asked twice
        more once a set is certified. ``ttca recheck`` can then tell whether the platform still answers as it did
        (:mod:`ttca.recheck`).
    valid_days : int
        Members' files expire so many days after they were verified. A platform changes, and the certificate speaks of
        the one that was asked.
    recipe : str
        "auto", "plain", "small-pictures", "photographs", or "manual": the keys below alone. With "auto", candidates of
        several recipes are learned and race on the platform, and what is set by hand holds for all of them
        (:mod:`ttca.recipes`). The next three are single recipes.
    race_share : float, optional
        Share of the queries before verification that pays for the race. By default a fifth, and more where there are
        few queries: eighty, but at most two fifths.
    most_minutes : int
        Of learning for the race, by an estimate. What does not fit is learned for a shorter time; what still does not
        fit does not race.
    combine : bool
        Let the race's runner-up serve the classes in which it was shown to help more, and leave alone those that δ
        harms; false: the winner serves all. The race's own answers decide this, at no further query
        (:mod:`ttca.combining`).
    left_out : tuple of str
        Recipes, and published weights by their names, that do not race.
    pinned : tuple of str
        Keys below that keep their default in every recipe; those you write are kept anyway. In Python, other settings
        count as set by hand where their value is not the default.
    architectures : tuple of str or callable
        small-cnn, small-resnet, small-mobilenet, resnet20 ..., timm/NAME or module:function. More than one make an
        ensemble. In Python also functions or classes that take (classes, seed).
    weights : tuple of str or str
        Published weights: "hub", files, names of ttca weights list, "none"; []: what is here. Several make an ensemble.
        ``hub``: timm's own, from the hub's cache or downloaded, for each ``timm/NAME`` of the architectures. Files end
        in ``.safetensors`` or ``.onnx``. ``none``: none at all. By default what is here and suits the images: in the
        folder that ``TTCA_WEIGHTS`` names, in installed packages, and in the hub's cache. The default architecture
        gives way to them; of others, those begin with weights that these fit.
    labelers : tuple of str or str
        Published weights that label ``public`` images without classes: files, names of ttca weights list; []: what is
        here. Where there are several, selection people choose one. Nobody's images are sent for it.
    epochs : int
        Of learning from the platform's answers.
    public_epochs : int
        Of learning from public images, or from members' true classes.
    shift : int
        Random translation while learning, in pixels.
    flip : bool
        Random mirror images while learning; right for most photographs. Both the proxy and δ learn from them.
    warp : float
        Random turns and zooms, for platforms that crop or align; try 0.15. 0 is off
        (:class:`ttca.proxies.options.Distilling`).
    mixup : float
        Blend pairs of images whose answers carry all scores; try 0.4. It is the Beta parameter of mixup; 0 is off.
    true_classes : bool
        Learn from members' own true classes before their answers, as the proxy would from public data.
    equalize : bool
        Learn from the subgroup's images made as sharp as the volunteers'. The subgroup's pool images are given the mean
        spectrum of the volunteers' (:class:`ttca.equaliser.Equalizer`) before the platform is asked about them. Where a
        camera is the difference, the proxy then learns from what the platform was trained on. δ is learned on the
        images as they are.
    precision : {"float32", "bfloat16", "auto"}
        "float32", "bfloat16", or "auto": bfloat16 where the processor gains from it.
    threads : int, optional
        Of the processor; by default all cores, and then results depend on the machine: sums are added up in another
        order, and the last digits differ.
    processes : int
        Processes that train the proxy together, one per GPU, through accelerate. Everything else is computed in one
        process, on a GPU where there is one.
    steps : int
        Of learning perturbations, per epsilon.
    block : int
        Squares of so many pixels change together; 8 suits platforms that shrink photographs. Proxies see images
        averaged over them. 1 gives every pixel its own level. A coarse δ survives a platform that resizes, and is
        learned block² times faster.
    kappa : float
        Of the margin: by how much an image must win until it pulls no more.
    loss : {"margin", "cross-entropy", "logit", "centered-logit"}
        What is minimized: "margin", "cross-entropy", "logit", or "centered-logit"; the last two need steps = 300
        (:class:`ttca.attacks.options.Perturbing`).
    attack : str
        Name of an attack that an installed package offers; "" is ttca's own. The entry-point group is ``ttca.attacks``.
    transforms : tuple of str
        What uploads may go through while learning: "resize", "blur", "jpeg".
    rounds : int
        Ask about copies altered by what was learned so far, so many times. 0: every pool person is asked about the
        image as it is.
    altered : float
        Share of the pool people of the subgroup who are asked that way, if there are rounds.
    refine : float, optional
        Share of the queries saved to refine the result on the platform itself. The platform is then asked in what
        coarse directions δ should move (:mod:`ttca.attacks.refinement`), and selection people say whether that helped.
        0: none; 1: all, where true classes are known to learn a proxy from. By default none; a fifth where recipes race
        and δ is learned in blocks (:func:`ttca.recipes.completed`).
    """

    name: str = "action"
    subgroup: str = "subgroup"
    epsilons: tuple[int, ...] = (2, 4, 8)
    seed: int = 0
    recipe: str = "manual"
    pinned: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    race_share: float | None = None
    most_minutes: int = 10
    combine: bool = True
    architectures: tuple[Architecture, ...] = DEFAULT_ARCHITECTURES
    weights: str | tuple[str, ...] = ()
    labelers: str | tuple[str, ...] = ()
    epochs: int = 60
    shift: int = 1
    flip: bool = False
    warp: float = 0.0
    mixup: float = 0.0
    block: int = 1
    true_classes: bool = False
    equalize: bool = False
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    threads: int | None = None
    processes: int = 1
    public_epochs: int = 10
    rounds: int = 0
    altered: float = 0.5
    refine: float | None = None
    loss: Literal["margin", "cross-entropy", "logit", "centered-logit"] = "margin"
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
        _check_kinds(self)
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
        if self.refine is not None and not 0 <= self.refine <= 1:
            raise ConfigError(f"Expected refine as a share in [0, 1], got {self.refine}. 0.2 saves every fifth query.")
        self._check_recipe()
        _ = self.certifying
        object.__setattr__(self, "weights", _words(self.weights))
        object.__setattr__(self, "labelers", _words(self.labelers, "labelers"))
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
        named = ("auto", "manual", *NAMED)
        if self.recipe not in named:
            near = difflib.get_close_matches(self.recipe, named, n=1)
            raise ConfigError(
                f'Expected recipe as "auto", "manual" or one of {", ".join(NAMED)}, got {self.recipe!r}. '
                f'{f"Did you mean {near[0]!r}? " if near else ""}"auto" lets several race.'
            )
        if self.race_share is not None and not 0 < self.race_share < 1:
            raise ConfigError(
                f"Expected race_share as a share in (0, 1), got {self.race_share}. 0.2 spends every fifth query."
            )
        of_races = [
            f.name for f in fields(self) if f.name in _OF_RACES and getattr(self, f.name) not in (f.default, [])
        ]
        if of_races and not self.races:
            raise ConfigError(
                f'Expected {of_races[0]} only where recipes race, got recipe = "{self.recipe}". Take it out, or write '
                'recipe = "auto".'
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


def _check_kinds(settings: Settings) -> None:
    """Raise ConfigError where one thing is given in place of several, or what is no number in place of one."""
    for name in ("epsilons", "control_lengths", "architectures", "transforms", "pinned", "left_out"):
        given = getattr(settings, name)
        if not isinstance(given, tuple | list):
            raise ConfigError(f"Expected {name} as a list, got {given!r}. For one alone write {name} = [{given!r}].")
    for name in ("transforms", "pinned", "left_out"):
        for word in getattr(settings, name):
            if not isinstance(word, str):
                raise ConfigError(f"Expected {name} as names, got {word!r} among them. Write each in quotes.")
    for name in ("altered", "refine", "kappa", "warp", "mixup", "race_share"):
        number = getattr(settings, name)
        left_out = number is None and name in ("refine", "race_share")
        if not left_out and (isinstance(number, bool) or not isinstance(number, Real)):
            quoted = isinstance(number, str) and number.strip().replace(".", "", 1).isdecimal()
            how = "it without quotes" if quoted else "one, such as 0.2"
            raise ConfigError(f"Expected {name} as a number, got {number!r}. Write {how}.")
    for name in ("name", "subgroup", "recipe", "stopping", "loss", "precision", "attack"):
        if not isinstance(getattr(settings, name), str):
            raise ConfigError(f"Expected {name} as text, got {getattr(settings, name)!r}. Write it in quotes.")
    for name in ("combine", "flip", "true_classes", "equalize", "every_image", "controls"):
        if not isinstance(getattr(settings, name), bool | np.bool_):
            raise ConfigError(f"Expected {name} as true or false, got {getattr(settings, name)!r}.")


def _words(weights: Any, name: str = "weights") -> tuple[str, ...]:
    words = (weights,) if isinstance(weights, str) else tuple(weights) if isinstance(weights, tuple | list) else (None,)
    texts = all(isinstance(w, str) and w.strip() for w in words)
    other = texts and name != "weights" and {"hub", "none"} & set(words)
    alone = "none" in words and len(words) > 1
    if not texts or other or alone or len(set(words)) != len(words):
        or_else = ', or as "hub" or "none"' if name == "weights" else ""
        raise ConfigError(
            f"Expected {name} as different paths or names{or_else}, got {weights!r}. Leave them out to use what is "
            "here."
        )
    return words
