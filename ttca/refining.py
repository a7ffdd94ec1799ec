"""Refining: the last queries go to the platform itself, which tells in what coarse directions δ should move."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ttca.asking import Questions
from ttca.people import People, Roster
from ttca.proxies.runtime import give_back_memory
from ttca.recipes import JUDGED
from ttca.values import Value
from ttca.workshop import Workshop

if TYPE_CHECKING:
    from ttca.attacks.refinement import Probes

__all__ = ["Refinement"]


@dataclass(frozen=True, eq=False, repr=False)
class Refinement(Value):
    """The saved queries of an action, and what they bring.

    Parameters
    ----------
    shop : Workshop
    members : People
        Pool people of the subgroup, of whose images probes are made.
    selection : People
        Selection people of the subgroup, who say of each refined δ whether it helps.
    checks : int
        How many selection people are asked about each refined δ: with a quarter of the saved queries, or half where
        that asks nobody.
    pairs : int
        How many pairs of probes the saved queries pay for beside that.
    """

    shop: Workshop
    members: People
    selection: People
    checks: int
    pairs: int

    @classmethod
    def of(cls, shop: Workshop, roster: Roster, questions: Questions) -> Refinement:
        """Return the refinement that the settings save queries for."""
        levels = len(shop.settings.epsilons)
        # What nobody judges is never kept: so nothing is asked for it.
        enough = 2 * questions.saved >= JUDGED * levels
        checks = min(max(questions.saved // (JUDGED * levels), 1), len(questions.selection)) if enough else 0
        members = roster.pool[roster.pool.subgroup]
        pairs = questions.saved // 2 - checks * levels if checks else 0
        return cls(shop, members, questions.selection, checks, pairs)

    @cached_property
    def _probed(self) -> tuple[Probes, NDArray[np.float64]]:
        """What the platform says about coarse patterns on members' images."""
        from ttca.attacks.refinement import draw_probes, support

        # Photographs by the hundred come next: what training kept for itself would lie about beside them.
        give_back_memory()
        settings = self.shop.settings
        rng = np.random.default_rng([settings.seed, 7])
        probes = draw_probes(self.members.images, pairs=self.pairs, rng=rng, block=settings.block)
        owners = np.tile(self.members.members[probes.rows], 2).tolist()
        answers = self.shop.queries.ask(probes.images, purpose="pool", owners=owners, shown="refining δ")
        return probes, support(answers.labels, answers.scores, answers.resolution)

    def apply(self, delta: NDArray[np.int8], epsilon: int) -> tuple[NDArray[np.int8], dict[str, Any]]:
        """Move δ as the platform's answers about probes say, and keep that only if selection people say it helped.

        They are asked about the way from the old δ to the new one, and the same way backwards, taken as far as a
        probe goes: a change of a few levels would move so few answers that chance decided.

        Returns
        -------
        int8 array, dict
            δ, and what is written down about it: queries spent, the gain foretold and found, and whether it was kept.
        """
        from ttca.attacks.refinement import AMPLITUDE, steer, support

        probes, said = self._probed
        refined, foretold = steer(delta, probes, said, epsilon=epsilon)
        people = self.selection[: self.checks]
        first = epsilon == min(self.shop.settings.epsilons)
        facts: dict[str, Any] = {
            "queries": len(probes.images) * first,
            "foretold": foretold.tolist(),
            "gain": 0.0,
            "kept": False,
        }
        way = np.sign(refined.astype(np.int16) - delta) * AMPLITUDE
        if len(people) and way.any():
            old = people.images + delta[people.classes].astype(np.int16)
            sent = np.concatenate([np.clip(old + sign * way[people.classes], 0, 255) for sign in (1, -1)])
            owners = np.tile(people.members, 2).tolist()
            answers = self.shop.queries.ask(sent.astype(np.uint8), purpose="pool", owners=owners, shown="refining δ")
            own = support(answers.labels, answers.scores, answers.resolution).reshape(2, len(people), -1)
            gains = (own[0] - own[1])[np.arange(len(people)), people.classes]
            gain = float(np.nanmean(gains)) if not np.isnan(gains).all() else 0.0
            facts |= {"queries": facts["queries"] + len(sent), "gain": gain, "kept": gain > 0}
            found = "kept: it helped" if gain > 0 else "dropped: it did not help"
            self.shop.reporter.say(f"Refined δ at ε = {epsilon} was {found} the selection people who were asked.")
        return (refined if facts["kept"] else delta), facts
