"""Recipes: what a hand used to choose for learning, as named values, and the portfolio of them that is raced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ttca.errors import ConfigError
from ttca.images import ImageShape
from ttca.proxies.backbones import Backbone

if TYPE_CHECKING:
    from ttca.settings import Settings

__all__ = [
    "JUDGED",
    "NAMED",
    "NAMES",
    "RECIPE_KEYS",
    "WARM_KEYS",
    "Circumstances",
    "Recipe",
    "completed",
    "portfolio",
    "proxy_part",
]

#: The settings that a recipe may choose. Who is asked about what, and what is proved, is the action's.
RECIPE_KEYS = (
    "architectures", "weights", "precision", "true_classes", "public_epochs", "epochs", "shift", "flip", "warp",
    "mixup", "block", "equalize", "loss", "kappa", "transforms", "steps",
)  # fmt: skip
#: Those that decide a proxy. Candidates that agree in them share it.
_OF_PROXIES = RECIPE_KEYS[:12]
#: And those that decide what one learns from true classes alone.
WARM_KEYS = tuple(key for key in _OF_PROXIES if key not in ("epochs", "mixup"))
#: Those that say how long something is learned.
_LENGTHS = ("public_epochs", "epochs", "steps")
#: Sides from which on δ is learned in blocks, and of photographs.
_COARSE = 48
#: A side from which on images are taken for photographs, and how many blocks of δ a photograph should have a side.
_PHOTOGRAPH, _BLOCKS = 96, 28
#: Who races first. Two δ against one proxy differ less than two proxies.
_ORDER = (
    "zero-query-mixed", "zero-query", "published-true-first", "published-equalized", "published-mixed",
    "published-mixed-equalized", "zero-query-mixed-equalized", "published-other", "equalized", "photographs",
    "small-pictures", "block", "published-together", "published-margin", "mixed", "true-first", "published",
    "residual", "true-first-margin", "published-rough", "true-first-rough", "answers", "mixed-margin", "plain",
)  # fmt: skip
#: The names of all recipes that may race, in that order (docs/recipes.md says what each is).
NAMES = tuple("block-N" if name == "block" else name for name in _ORDER)
#: Networks that differ so much that what moves all of them is likely to move a fourth.
_MIXED = ("perceptron", "small-cnn", "small-resnet")
#: How much of its queries a race of photographs refines with. On faces, of two seeds and two recipes, refining moved S
#: by .054, .028, 0 and 0 at ε = 4, and leaving a fifth of the answers to it by .031, 0, .008 and .003 in all (ad hoc).
_REFINED = 0.2
#: So many queries of refining for each ε ask one selection person, twice: a quarter of them judges.
JUDGED = 8
#: So many published networks make an ensemble, at most.
_TOGETHER = 3
#: The smallest side at which a mirror image of what is seen is taken for the same thing: smaller ones may be letters.
_MIRRORED = 24


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How δ is learned.

    Parameters
    ----------
    name : str
    about : str
        What is special about it, in a few words for people.
    changes : dict
        The settings that it chooses, among :data:`RECIPE_KEYS`; every other one stays as it is.
    asks : bool
        Whether it learns from the platform's answers. A recipe that does not learns from true classes alone.

    Raises
    ------
    ConfigError
        If it has no name, or chooses what a recipe may not.
    """

    name: str
    about: str
    changes: Mapping[str, Any]
    asks: bool = True

    def __post_init__(self) -> None:
        if not self.name or not self.name.replace("-", "").isalnum() or self.name != self.name.lower():
            raise ConfigError(f"Expected a recipe's name as small letters, digits and dashes, got {self.name!r}.")
        strange = sorted(set(self.changes) - set(RECIPE_KEYS))
        if strange:
            raise ConfigError(
                f"Expected a recipe to choose among {', '.join(RECIPE_KEYS)}, got {strange[0]} in {self.name}."
            )
        object.__setattr__(
            self, "changes", {k: tuple(v) if isinstance(v, list) else v for k, v in self.changes.items()}
        )

    def applied(self, settings: Settings, length: float = 1.0) -> Settings:
        """Return settings with what the recipe chooses, so many times as long; what is set by hand stays as it is."""
        by_hand = settings.set_by_hand
        found = replace(settings, **{k: v for k, v in self.changes.items() if k not in by_hand})
        if length == 1:
            return found
        return replace(found, **{k: max(1, round(getattr(found, k) * length)) for k in _LENGTHS if k not in by_hand})

    def told(self, settings: Settings) -> str:
        """Return what is special about it, and which of what it chooses is set by hand instead."""
        other = [
            k for k in sorted(settings.set_by_hand & self.changes.keys()) if getattr(settings, k) != self.changes[k]
        ]
        return f"{self.about}, with your own {' and '.join(other)}" if other else self.about

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        changes = {k: list(v) if isinstance(v, tuple) else v for k, v in self.changes.items()}
        return {"name": self.name, "about": self.about, "changes": changes, "asks": self.asks}

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Recipe:
        """Return what :meth:`to_dict` wrote."""
        return cls(**said)


#: The logit loss beats the margin at as many steps by 5 points at ε 4; centered, it won 5 more at ε 8 with one proxy,
#: and with two nothing (docs/effect.md).
_DESCENT: dict[str, Any] = {"loss": "centered-logit", "steps": 300}
_SMALL_PICTURES = Recipe(
    name="small-pictures",
    about="made by hand for pictures of 32 pixels through a soft camera",
    changes={
        "architectures": ("small-cnn",),
        "weights": ("none",),
        "precision": "auto",
        "true_classes": True,
        "public_epochs": 120,
        "epochs": 30,
        "shift": 4,
        "flip": True,
        "equalize": True,
        "loss": "cross-entropy",
        "steps": 300,
    },
)
_PHOTOGRAPHS = Recipe(
    name="photographs",
    about="made by hand for photographs of faces, with δ in blocks of 8 pixels",
    changes={
        "architectures": _MIXED,
        "weights": ("none",),
        "precision": "auto",
        "true_classes": True,
        "public_epochs": 60,
        "block": 8,
        "shift": 0,
        "flip": True,
        "warp": 0.15,
        "loss": "cross-entropy",
        "steps": 150,
    },
)
_PLAIN = Recipe(
    name="plain",
    about="ttca's settings as they were before there were recipes",
    changes={"architectures": ("small-cnn",), "weights": ("none",)},
)
#: Recipes that can be named in settings, without a race.
NAMED: Mapping[str, Recipe] = {r.name: r for r in (_PLAIN, _SMALL_PICTURES, _PHOTOGRAPHS)}


def completed(settings: Settings, shape: ImageShape, pool: int) -> Settings:
    """Return the settings with what they leave open: the recipe that they name, and how much refining gets.

    Parameters
    ----------
    settings : Settings
    shape : (H, W, 3)
        Of the platform's images.
    pool : int
        How many queries the pool has.

    Notes
    -----
    *Ours*. Refining asks in coarse directions, so where recipes race it is worth a fifth of the queries if δ is coarse,
    and nothing on small pictures.
    """
    named = NAMED.get(settings.recipe)
    found = settings if named is None else named.applied(settings)
    if found.refine is not None:
        return found
    coarse = found.races and Circumstances(shape=shape, classes=2).coarse
    judged = _REFINED * pool >= JUDGED * len(found.epsilons)
    return replace(found, refine=_REFINED if coarse and judged else 0.0)


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What a portfolio is chosen by.

    Parameters
    ----------
    shape : (H, W, 3)
        Of the platform's images.
    classes : int
    both_groups : bool
        Whether pool people are of both groups: only then can one be equalized to the other.
    public : bool
        Whether there are public images with classes.
    backbones : tuple of Backbone
        Published weights that are here and suit the images, the best first.
    """

    shape: ImageShape
    classes: int
    both_groups: bool = True
    public: bool = False
    backbones: tuple[Backbone, ...] = ()

    @property
    def photographs(self) -> bool:
        """Whether the images are so large that δ is learned in blocks."""
        return min(self.shape[:2]) >= _PHOTOGRAPH

    @property
    def coarse(self) -> bool:
        """Whether proxies see images averaged over blocks: what they learn at four times the pixels takes that long."""
        return min(self.shape[:2]) >= _COARSE

    @property
    def blocks(self) -> tuple[int, ...]:
        """Sides of blocks that divide the images, the most fitting first: coarse ones, but for small pictures."""
        height, width, _ = self.shape
        fits = [b for b in range(1, min(height, width) + 1) if not height % b and not width % b]
        if not self.coarse:
            return tuple(b for b in fits if b <= 2 and min(height, width) / b >= 8)
        fits = [b for b in fits if min(height, width) / b >= 16 and b > 1] or [1]
        fits.sort(key=lambda b: abs(min(height, width) / b - _BLOCKS))
        # Single pixels of a photograph take hours.
        return tuple(fits[:2]) if self.photographs else tuple(dict.fromkeys((fits[0], 1)))


def portfolio(found: Circumstances, settings: Settings) -> tuple[Recipe, ...]:
    """Return the candidates of a race, those first that are raced first where time is short.

    Parameters
    ----------
    found : Circumstances
    settings : Settings
        Of the action: what is set by hand pins that part of every candidate, and candidates that it leaves alike are
        one. ``left_out`` names recipes that do not race.

    Returns
    -------
    tuple of Recipe
        At least one. One of them asks nothing: it learns from true classes alone.

    Notes
    -----
    *Ours*. Candidates differ in what a hand used to choose, and share proxies where they can: a proxy takes minutes, a
    second δ against it seconds.
    """
    kept: list[Recipe] = []
    seen: set[tuple[Any, ...]] = set()
    for recipe in _all(found):
        applied = recipe.applied(settings)
        nothing_to_learn = not (recipe.asks or applied.true_classes or found.public)
        cannot_equalize = applied.equalize and not found.both_groups
        if recipe.name in settings.left_out or nothing_to_learn or cannot_equalize:
            continue
        what = (*(getattr(applied, key) for key in RECIPE_KEYS), recipe.asks)
        if what not in seen:
            seen.add(what)
            kept.append(recipe)
    if not kept:
        raise ConfigError(
            'Expected a recipe that is not left out, got none. Take a name out of left_out, or set recipe = "manual".'
        )
    return tuple(kept)


def proxy_part(settings: Settings, *, asks: bool) -> tuple[Any, ...]:
    """Return what of the settings decides a proxy: candidates with the same share it."""
    return (*(getattr(settings, key) for key in _OF_PROXIES), asks)


def _all(found: Circumstances) -> Sequence[Recipe]:
    # A hundred classes take longer to learn than two, and few people are gone through more often.
    often = 2 if found.classes > 20 else 1
    block = found.blocks[0] if found.blocks else 1
    common = {"block": block, "precision": "auto", "flip": min(found.shape[:2]) >= _MIRRORED, **_DESCENT}
    scratch = _from_scratch(found, common, often)
    if not found.backbones:
        return sorted(scratch, key=_rank)
    # Of those that ask nothing the better ones begin near. Of the others none is certain to be worse.
    asking = (recipe for recipe in scratch if recipe.asks)
    return sorted([*_from_published(found, common, often), *asking], key=_rank)


def _from_scratch(found: Circumstances, common: dict[str, Any], often: int) -> list[Recipe]:
    """Return the recipes whose proxies begin with random weights."""
    own = common | {"weights": ("none",), "true_classes": True, "public_epochs": 60 * often, "epochs": 30, "shift": 2}
    cnn, resnet, mixed = ("small-cnn",), ("small-resnet",), _MIXED
    scratch = [
        Recipe(
            name="zero-query",
            about="true classes alone, no answer",
            changes=own | {"architectures": cnn},
            asks=False,
        ),
        Recipe(name="true-first", about="true classes, then answers", changes=own | {"architectures": cnn}),
        Recipe(
            name="answers",
            about="answers alone",
            changes=own | {"architectures": cnn, "true_classes": False, "epochs": 60},
        ),
        Recipe(
            name="equalized",
            about="images made as sharp as the volunteers'; true classes, then answers",
            changes=own | {"architectures": cnn, "equalize": True},
        ),
        Recipe(name="residual", about="a residual network", changes=own | {"architectures": resnet}),
        Recipe(name="mixed", about="three networks together", changes=own | {"architectures": mixed}),
        Recipe(
            name="true-first-margin",
            about="true classes, then answers; δ by its margin",
            changes=own | {"architectures": cnn, "loss": "margin", "kappa": 8.0, "steps": 200},
        ),
        Recipe(
            name="true-first-rough",
            about="true classes, then answers; δ that survives resizing, blur and JPEG",
            changes=own | {"architectures": cnn, "transforms": ("resize", "blur", "jpeg")},
        ),
        Recipe(
            name="mixed-margin",
            about="three networks together; δ by its margin",
            changes=own | {"architectures": mixed, "loss": "margin", "kappa": 8.0, "steps": 200},
        ),
    ]
    for other in found.blocks[1:]:
        coarse = own | {"architectures": cnn, "block": other}
        about = f"δ in blocks of {other} pixels" if other > 1 else "δ in single pixels"
        scratch.append(Recipe(name=f"block-{other}", about=about, changes=coarse))
    if not found.coarse:
        scratch += [_PLAIN, _SMALL_PICTURES]
    elif found.photographs and not any(side % _PHOTOGRAPHS.changes["block"] for side in found.shape[:2]):
        scratch.append(_PHOTOGRAPHS)
    return scratch


def _from_published(found: Circumstances, common: dict[str, Any], often: int) -> list[Recipe]:
    """Return the recipes whose proxies begin with the published weights that are here."""
    words = (_word(found.backbones[0]),)
    tuned = common | {"weights": words, "public_epochs": 12 * often, "epochs": 12 * often, "shift": 2}
    longer = {"true_classes": True, "architectures": _MIXED, "public_epochs": 36 * often, "epochs": 18 * often}
    published = [
        Recipe(
            name="zero-query-mixed",
            about="published weights and three new networks together; true classes alone",
            changes=tuned | longer,
            asks=False,
        ),
        Recipe(
            name="zero-query-mixed-equalized",
            about="published weights and three new networks together; images made as sharp as the volunteers'; true "
            "classes alone",
            changes=tuned | longer | {"equalize": True},
            asks=False,
        ),
        Recipe(name="published", about="published weights, then answers", changes=tuned),
        Recipe(
            name="published-true-first",
            about="published weights, true classes, then answers",
            changes=tuned | {"true_classes": True},
        ),
        Recipe(
            name="published-equalized",
            about="published weights; images made as sharp as the volunteers'; true classes, then answers",
            changes=tuned | {"true_classes": True, "equalize": True},
        ),
        Recipe(
            name="published-mixed",
            about="published weights and three new networks together; true classes, then answers",
            changes=tuned | longer,
        ),
        Recipe(
            name="published-mixed-equalized",
            about="published weights and three new networks together; images made as sharp as the volunteers'; true "
            "classes, then answers",
            changes=tuned | longer | {"equalize": True},
        ),
        Recipe(
            name="published-margin",
            about="published weights, then answers; δ by its margin",
            changes=tuned | {"loss": "margin", "kappa": 8.0, "steps": 200},
        ),
        Recipe(
            name="published-rough",
            about="published weights, then answers; δ that survives resizing, blur and JPEG",
            changes=tuned | {"transforms": ("resize", "blur", "jpeg")},
        ),
    ]
    if len(found.backbones) > 1:
        together = tuned | {"true_classes": True, "weights": tuple(map(_word, found.backbones[:_TOGETHER]))}
        second = tuned | {"true_classes": True, "weights": (_word(found.backbones[1]),)}
        published += [
            Recipe(name="published-together", about="several networks' published weights together", changes=together),
            Recipe(name="published-other", about="another network's published weights", changes=second),
        ]
    return published


def _rank(recipe: Recipe) -> int:
    """Return a recipe's place in a race that time or queries may cut short: those first that differ most."""
    return _ORDER.index(recipe.name) if recipe.name in _ORDER else _ORDER.index("block")


def _word(backbone: Backbone) -> str:
    """Return how settings name a backbone: files by their path, what a cache or a package holds by its name."""
    return backbone.path if backbone.found in ("file", "folder") else backbone.name
