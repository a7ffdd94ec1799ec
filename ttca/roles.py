"""Who was given which role: kept from the first query on, so that whoever joins or leaves moves nobody else."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.errors import ActionError
from ttca.kept import load_json, save_json
from ttca.names import canonical, look_alike
from ttca.people import People

__all__ = ["ROLES_FILE", "GivenRoles"]

ROLES_FILE = "roles.json"
_ROLES = ("pool", "selection", "verification", "test", "unasked")


@dataclass(frozen=True)
class GivenRoles:
    """Roles as they were given, by person and by image.

    Parameters
    ----------
    salt : str
        Marks are SHA-256 digests of it and a name: the file that keeps them names nobody.
    roles : dict of str to str
        The role of each person and of each image, by its mark.
    members : dict of str to tuple of str
        The marks of the members who brought images of each person, or each image.
    drawn : dict
        By which shares and seed the roles were drawn, JSON-able; empty where nobody was given one yet.
    asked : bool
        Whether somebody was asked already. It stands in the ledger, not in the file.
    left : frozenset of str
        The marks of members who were forgotten. What was learned from them stays learned: should they come back, they
        do not verify.
    """

    salt: str
    roles: Mapping[str, str]
    members: Mapping[str, tuple[str, ...]]
    drawn: Mapping[str, Any]
    asked: bool = False
    left: frozenset[str] = frozenset()

    @classmethod
    def read(cls, folder: Path) -> GivenRoles:
        """Return what an action's folder keeps; nobody's role where it keeps nothing.

        Raises
        ------
        ActionError
            If the file cannot be read.
        """
        path = folder / ROLES_FILE
        if not path.is_file():
            return cls(secrets.token_hex(16), {}, {}, {})
        found = load_json(path)
        try:
            given, salt, drawn = dict(found["given"]), str(found["salt"]), dict(found["drawn"])
            roles = {str(mark): str(one["role"]) for mark, one in given.items()}
            members = {str(mark): tuple(map(str, one["members"])) for mark, one in given.items()}
            left = frozenset(map(str, found.get("left", ())))
        except (KeyError, TypeError, ValueError) as error:
            raise _unreadable(path, repr(error)) from None
        if strange := sorted(set(roles.values()) - set(_ROLES)):
            raise _unreadable(path, f"the role {strange[0]!r}")
        return cls(salt, roles, members, drawn, left=left)

    def save(self, folder: Path) -> None:
        """Keep the roles in an action's folder."""
        given = {mark: {"role": role, "members": list(self.members[mark])} for mark, role in self.roles.items()}
        about = {"salt": self.salt, "drawn": dict(self.drawn), "left": sorted(self.left)}
        save_json(folder / ROLES_FILE, {**about, "given": given})

    def of(self, people: People) -> NDArray[np.str_]:
        """Return the role of every image's person, str (N,); empty where nobody gave one."""
        pairs = zip(people.persons.tolist(), people.image_digests, strict=True)
        found = [self.role(person) or self.roles.get(self._mark(_content(image)), "") for person, image in pairs]
        return np.array(found, dtype=np.str_)

    def came_back(self, members: NDArray[np.str_]) -> NDArray[np.bool_]:
        """Return which of these members, str (N,), were forgotten before, bool (N,)."""
        return np.array([self._mark(look_alike(member)) in self.left for member in members.tolist()], np.bool_)

    def role(self, person: str) -> str:
        """Return a person's role, "" where nobody gave one."""
        return self.roles.get(self._mark(person), "")

    def role_of(self, image: NDArray[np.uint8]) -> str:
        """Return the role of whoever this image, shape (H, W, 3), is of; "" where nobody gave one."""
        return self.roles.get(self._mark(_content(hashlib.sha256(image.tobytes()).digest())), "")

    def cleared(self) -> GivenRoles:
        """Return that nobody has a role yet and nobody was asked, under the same salt."""
        return replace(self, roles={}, members={}, drawn={}, asked=False, left=frozenset())

    def with_people(self, people: People, given: NDArray[np.str_], drawn: Mapping[str, Any]) -> GivenRoles:
        """Return these roles and those of further people.

        Parameters
        ----------
        people : People
        given : str array, shape (N,)
            The role of each image. Whoever has a role already gets the one that is told here.
        drawn : dict
            How they were drawn, where this had not been said before.
        """
        roles, members = dict(self.roles), dict(self.members)
        columns = (people.persons.tolist(), people.image_digests, people.members.tolist(), given.tolist())
        for person, image, member, role in zip(*columns, strict=True):
            payer = self._mark(member)
            for mark in (self._mark(person), self._mark(_content(image))):
                roles[mark] = role
                members[mark] = tuple(sorted({*members.get(mark, ()), payer}))
        return replace(self, roles=roles, members=members, drawn=self.drawn or dict(drawn))

    def without(self, member: str) -> GivenRoles:
        """Return the roles of all whom somebody else than this member brought images of."""
        gone = self._mark(canonical(member))
        left = {mark: tuple(one for one in payers if one != gone) for mark, payers in self.members.items()}
        kept = {mark: payers for mark, payers in left.items() if payers}
        roles = {mark: self.roles[mark] for mark in kept}
        return replace(self, roles=roles, members=kept, left=self.left | {self._mark(look_alike(member))})

    def _mark(self, name: str) -> str:
        return hashlib.sha256(f"{self.salt} {name}".encode()).hexdigest()[:32]


def _content(digest: bytes) -> str:
    """Return what stands for an image of this digest among the names: no person is called so."""
    return f"\n{digest.hex()}"


def _unreadable(path: Path, why: str) -> ActionError:
    return ActionError(
        f"Expected in {path} who was given which role, got something that cannot be read ({why}). Restore the file."
    )
