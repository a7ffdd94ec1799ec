"""What every step of an action works with: its folder, its settings, its platform, who asks and who learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ttca.learning import Learner
from ttca.platforms.base import PlatformInfo
from ttca.pooling.pool import QueryPool
from ttca.preparation import Preparation
from ttca.progress import Reporter
from ttca.settings import Settings
from ttca.side_by_side import Made, Piece, side_by_side
from ttca.weights import Start, choose_labelers, choose_start

if TYPE_CHECKING:
    from ttca.attacks.universal import Attack
    from ttca.proxies.backbones import Backbone

__all__ = ["Workshop"]


@dataclass(frozen=True)
class Workshop:
    """What every step works with. It holds no result: those are handed from step to step.

    Parameters
    ----------
    folder : Path
        Where results are kept.
    settings : Settings
    queries : QueryPool
        Who asks the platform, and pays.
    reporter : Reporter
    attack : Attack, optional
        A guest that learns every δ instead of ttca's own.
    preparation : Preparation, optional
        How everybody's photographs became the images, and how members' will.
    tells : bool
        Whether it is said what the proxy begins with.
    home : Path, optional
        The action's own folder, which candidates share; left out, ``folder``.
    """

    folder: Path
    settings: Settings
    queries: QueryPool
    reporter: Reporter
    attack: Attack | None = None
    preparation: Preparation | None = None
    tells: bool = True
    home: Path = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.home is None:
            object.__setattr__(self, "home", self.folder)

    @property
    def info(self) -> PlatformInfo:
        """What is known about the platform."""
        return self.queries.platform.info

    @property
    def has_guest(self) -> bool:
        """Whether a guest's attack learns δ, which may not be in two threads at once."""
        return self.attack is not None or bool(self.settings.attack)

    def side_by_side(
        self,
        tasks: Sequence[Callable[[Reporter], Made]],
        *,
        what: str,
        pieces: Sequence[Piece] = (),
        unit: str = "pieces",
    ) -> list[Made]:
        """Return what every task makes (:func:`ttca.side_by_side.side_by_side`), shown where this shop shows things."""
        return side_by_side(
            tasks,
            what=what,
            reporter=self.reporter,
            threads=self.settings.threads,
            alone=self.has_guest,
            pieces=pieces,
            unit=unit,
        )

    @cached_property
    def start(self) -> Start:
        """What the proxy begins with; raises ConfigError where weights that are named cannot be had."""
        return choose_start(self.settings, self.folder, side=self.info.image_shape[0] // self.settings.block)

    @cached_property
    def labelers(self) -> tuple[Backbone, ...]:
        """What can label public images; raises ConfigError where nothing can."""
        return choose_labelers(self.settings, self.home)

    @cached_property
    def learner(self) -> Learner:
        """Proxies and δ; raises MissingExtraError where torch is not installed."""
        if self.tells:
            self.reporter.say(self.start.told)
        return Learner(
            self.settings,
            classes=len(self.info.classes),
            image_shape=self.info.image_shape,
            reporter=self.reporter,
            attack=self.attack,
            start=self.start,
        )
