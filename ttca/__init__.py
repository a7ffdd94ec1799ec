"""Test-time collective action: pool queries, learn one small perturbation per class, prove that it helps.

Names are loaded when first used, so that applying a perturbation or asking a platform needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ttca.action import CollectiveAction
    from ttca.answers import Answers
    from ttca.certificates import Certificate
    from ttca.conditions import Control, Measuring
    from ttca.errors import TTCAError
    from ttca.fairness import SubgroupReport
    from ttca.outgoing import apply_to_requests
    from ttca.people import People, Roster, split_roles
    from ttca.perturbations import PerturbationSet
    from ttca.pipelines import PerturbationTransform
    from ttca.platforms.habits import Habits, WithHabits
    from ttca.platforms.http import HttpPlatform, Key, Transport
    from ttca.platforms.local import LocalPlatform
    from ttca.pooling.ledger import Ledger
    from ttca.pooling.pool import Member, QueryPool
    from ttca.settings import Settings

__version__ = "0.2.0"

__all__ = [
    "Answers",
    "Certificate",
    "CollectiveAction",
    "Control",
    "Habits",
    "HttpPlatform",
    "Key",
    "Ledger",
    "LocalPlatform",
    "Measuring",
    "Member",
    "People",
    "PerturbationSet",
    "PerturbationTransform",
    "QueryPool",
    "Roster",
    "Settings",
    "SubgroupReport",
    "TTCAError",
    "Transport",
    "WithHabits",
    "apply_to_requests",
    "split_roles",
]

_HOME = {
    "Answers": "ttca.answers",
    "Certificate": "ttca.certificates",
    "CollectiveAction": "ttca.action",
    "Control": "ttca.conditions",
    "Habits": "ttca.platforms.habits",
    "HttpPlatform": "ttca.platforms.http",
    "Key": "ttca.platforms.http",
    "Ledger": "ttca.pooling.ledger",
    "LocalPlatform": "ttca.platforms.local",
    "Measuring": "ttca.conditions",
    "Member": "ttca.pooling.pool",
    "People": "ttca.people",
    "PerturbationSet": "ttca.perturbations",
    "PerturbationTransform": "ttca.pipelines",
    "QueryPool": "ttca.pooling.pool",
    "Roster": "ttca.people",
    "Settings": "ttca.settings",
    "SubgroupReport": "ttca.fairness",
    "TTCAError": "ttca.errors",
    "Transport": "ttca.platforms.http",
    "WithHabits": "ttca.platforms.habits",
    "apply_to_requests": "ttca.outgoing",
    "split_roles": "ttca.people",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ttca' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
