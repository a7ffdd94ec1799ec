"""How δ is learned: one object, checked where it is made, without torch; attacks of guests by their names."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal, get_args

from ttca.proxies.runtime import Precision, check_threads

if TYPE_CHECKING:
    from ttca.attacks.universal import Attack

__all__ = ["TRANSFORMS", "Perturbing", "check_attack", "check_transforms", "load_attack"]

Loss = Literal["margin", "cross-entropy", "logit", "centered-logit"]

#: The random input transformations, by name: ``module:function``.
TRANSFORMS = {
    "resize": "ttca.attacks.transforms:resize",
    "blur": "ttca.attacks.transforms:blur",
    "jpeg": "ttca.attacks.transforms:differentiable_jpeg",
}
#: The entry-point group in which an installed package offers attacks: a name, and what makes one of `Perturbing`.
_GROUP = "ttca.attacks"


@dataclass(frozen=True, kw_only=True)
class Perturbing:
    """How :class:`ttca.attacks.universal.SignDescent` learns δ.

    Parameters
    ----------
    loss : {"margin", "cross-entropy", "logit", "centered-logit"}
        ``margin`` is max(max_{k≠c} z_k − z_c, −κ): an image that already wins by κ pulls no more. ``logit`` is −z_c:
        every image pulls alike to the end (Zhao et al. 2021, arXiv 2012.11207) [published]. ``centered-logit`` is
        mean_k z_k − z_c [ours]. Softmax ignores what is added to all logits alike, and ``logit`` may spend δ on it. A
        proxy of several models is balanced for it (:class:`ttca.proxies.balance.Balanced`).
    kappa : float
    steps : int
    step_size : float, optional
        First step in levels; default ε/4. It falls to zero along a cosine.
    momentum : float
        Decay of the accumulated, per-group normalized gradient.
    batch_size : int
    shift : int
        Random translation of the perturbed batch by up to this many pixels, wrapping round, for transfer.
    flip : bool
        Random mirror images of the people, not of δ: twice as many people to learn from.
    transforms : tuple of str
        Among :data:`TRANSFORMS`: each step draws one of them, or none, for the perturbed batch.
    precision : {"float32", "bfloat16", "auto"}
        Autocast of the model's passes (:func:`ttca.proxies.runtime.autocast_for`).
    check_every : int
        Steps between looks at the selection people.
    threads : int, optional
        Of the processor; by default as many as torch takes.
    seed : int

    Raises
    ------
    ValueError
        If an option is out of its range.
    """

    loss: Loss = "margin"
    kappa: float = 4.0
    steps: int = 200
    step_size: float | None = None
    momentum: float = 0.9
    batch_size: int = 256
    shift: int = 1
    flip: bool = False
    transforms: tuple[str, ...] = ()
    precision: Precision = "float32"
    check_every: int = 10
    threads: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_threads(self.threads)
        for name, least in {"steps": 1, "batch_size": 1, "check_every": 1, "shift": 0, "seed": 0}.items():
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise ValueError(f"Expected {name} as a whole number of at least {least}, got {number!r}.")
        for name, known in {"loss": get_args(Loss), "precision": get_args(Precision)}.items():
            if getattr(self, name) not in known:
                raise ValueError(f"Expected {name} to be one of {', '.join(known)}, got {getattr(self, name)!r}.")
        check_transforms(self.transforms)


def check_transforms(names: tuple[str, ...]) -> None:
    """Raise ValueError if a name is not one of :data:`TRANSFORMS`."""
    unknown = [name for name in names if name not in TRANSFORMS]
    if unknown:
        raise ValueError(f"Expected each transform to be one of {', '.join(TRANSFORMS)}, got {unknown[0]!r}.")


def check_attack(name: str) -> None:
    """Raise ValueError if no installed package offers an attack by this name; loads none."""
    known = {entry.name for entry in entry_points(group=_GROUP)}
    if name not in known:
        listed = ", ".join(sorted(known)) or "none"
        raise ValueError(
            f"Expected an attack that an installed package offers (found: {listed}), got {name!r}. Install the package "
            "that offers it, or leave the key out for ttca's own."
        )


def load_attack(name: str, options: Perturbing) -> Attack:
    """Return the attack that an installed package offers by this name, made with the action's options."""
    check_attack(name)
    made: Any = next(iter(entry_points(group=_GROUP, name=name))).load()(options)
    attack: Attack = made
    return attack
