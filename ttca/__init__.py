"""Test-time collective action: pool queries, learn one small perturbation per class, prove that it helps.

Names are loaded when first used, so that applying a perturbation or asking a platform needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ttca.action import CollectiveAction
    from ttca.answers import Answers
    from ttca.certificates import Certificate
    from ttca.errors import TTCAError
    from ttca.fairness import SubgroupReport
    from ttca.people import People, Roster, split_roles
    from ttca.perturbations import PerturbationSet
    from ttca.platforms.http import HttpPlatform
    from ttca.platforms.local import LocalPlatform
    from ttca.pooling.ledger import Ledger
    from ttca.pooling.pool import Member, QueryPool
    from ttca.settings import Settings

__version__ = "0.1.0"

__all__ = [
    "Answers",
    "Certificate",
    "CollectiveAction",
    "HttpPlatform",
    "Ledger",
    "LocalPlatform",
    "Member",
    "People",
    "PerturbationSet",
    "QueryPool",
    "Roster",
    "Settings",
    "SubgroupReport",
    "TTCAError",
    "split_roles",
]

_HOME = {
    "Answers": "ttca.answers",
    "Certificate": "ttca.certificates",
    "CollectiveAction": "ttca.action",
    "HttpPlatform": "ttca.platforms.http",
    "Ledger": "ttca.pooling.ledger",
    "LocalPlatform": "ttca.platforms.local",
    "Member": "ttca.pooling.pool",
    "People": "ttca.people",
    "PerturbationSet": "ttca.perturbations",
    "QueryPool": "ttca.pooling.pool",
    "Roster": "ttca.people",
    "Settings": "ttca.settings",
    "SubgroupReport": "ttca.fairness",
    "TTCAError": "ttca.errors",
    "split_roles": "ttca.people",
}


def _refuse_shadows() -> None:
    """Raise when another package called ``proxies`` or ``attacks`` hides ours (they are top-level names)."""
    home = Path(__file__).resolve().parent.parent
    for name in ("proxies", "attacks"):
        spec = find_spec(name)
        found = Path(spec.origin).resolve() if spec and spec.origin else None
        if found != home / name / "__init__.py":
            where = "not found at all" if found is None else f"found in {found.parent}"
            raise ImportError(
                f"ttca expected its own package {name!r} in {home}, but it is {where}. "
                f"Rename or uninstall the other package called {name!r}, or install ttca in an environment of its own."
            )


_refuse_shadows()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ttca' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
