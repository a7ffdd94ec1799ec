"""Who is in an action, and in which single role: pool, selection, verification or test people never mix."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.errors import ActionError, DataError
from ttca.images import Images, ImageShape, check_images
from ttca.kept import Digest
from ttca.names import canonical
from ttca.preparation import Preparation
from ttca.values import Value

__all__ = ["People", "Roster", "counted_persons", "draw_roles", "split_people", "split_roles", "units"]


@dataclass(frozen=True, eq=False, repr=False)
class People(Value):
    """N images, each with its true class, its person, the member who pays for it, and its group.

    Parameters
    ----------
    images : uint8 array, shape (N, H, W, 3)
    classes : int64 array, shape (N,)
        True classes, 0..C−1.
    persons : str array, shape (N,)
        Whose image it is; one person may have several images and has one role.
    members : str array, shape (N,)
        Whose quota an image's own queries are meant for (the pool shares the load evenly all the same).
    subgroup : bool array, shape (N,)
        True for the under-served, False for the reference.

    Raises
    ------
    ImageError, DataError
        If the images, or the types, the shapes or the values of the columns, are not as above.
    """

    images: Images
    classes: NDArray[np.int64]
    persons: NDArray[np.str_]
    members: NDArray[np.str_]
    subgroup: NDArray[np.bool_]

    def __post_init__(self) -> None:
        check_images(self.images)
        self._check_columns()

    def _check_columns(self) -> None:
        columns = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)[1:]}
        shapes = {name: column.shape for name, column in columns.items()}
        if set(shapes.values()) != {(len(self.images),)}:
            raise DataError(
                f"Expected one class, person, member and group for each of {len(self.images)} images, got {shapes}. "
                "Give every column one value per image."
            )
        kinds = {name: column.dtype.kind for name, column in columns.items()}
        if kinds != {"classes": "i", "persons": "U", "members": "U", "subgroup": "b"}:
            raise DataError(
                "Expected classes as int64, persons and members as str, subgroup as bool, got "
                f"{ {name: str(column.dtype) for name, column in columns.items()} }. Convert them first."
            )
        if len(self.images) and self.classes.min() < 0:
            raise DataError(
                f"Expected class numbers of 0 or more, got {self.classes.min()}. Number the classes from 0."
            )

    @classmethod
    def build(
        cls,
        images: Any,
        classes: Any,
        *,
        persons: Sequence[str] | NDArray[np.str_] | None = None,
        members: Sequence[str] | NDArray[np.str_] | None = None,
        subgroup: Any = True,
    ) -> People:
        """Return people from plain arrays; without names every image is its own person and member.

        ``classes`` are whole numbers; ``subgroup`` is one truth value for all, or one per image (0 and 1 will do). Two
        spellings of one name (:func:`ttca.names.canonical`) are one person and one member. Names that merely look alike
        stay apart: a program's own numbers of people may differ by case alone.
        """
        checked = check_images(images)
        n = len(checked)
        own = np.array([f"person-{i:05d}" for i in range(n)], dtype=np.str_)
        who = own if persons is None else _names(persons)
        numbers, group = np.asarray(classes), np.asarray(subgroup)
        # Conversions would turn 0.5 into class 0, and the word "False" into True.
        if numbers.size and numbers.dtype.kind not in "iu":
            raise DataError(f"Expected classes as whole numbers, got {numbers.dtype}. Number the classes from 0.")
        if group.size and (group.dtype.kind not in "biu" or not np.isin(group, (0, 1)).all()):
            raise DataError(f"Expected subgroup as True or False per image, got {group.dtype} {np.unique(group)[:5]}.")
        built = cls._of(
            checked,
            numbers.astype(np.int64),
            who,
            who if members is None else _names(members),
            np.full(n, group, np.bool_) if group.ndim == 0 else group.astype(np.bool_),
        )
        built._check_columns()
        return built

    @classmethod
    def _of(cls, *columns: Any) -> People:
        """Return people of columns that were checked already, as parts of other people are."""
        made = cls.__new__(cls)
        for f, column in zip(fields(cls), columns, strict=True):
            object.__setattr__(made, f.name, column)
        return made

    @classmethod
    def concatenate(cls, parts: Sequence[People]) -> People:
        """Return the people of all parts (at least one) in order."""
        sizes = sorted({people.image_shape for people in parts})
        if len(sizes) != 1:
            raise DataError(f"Expected parts with images of one size, got {sizes}. Resize them first.")
        return cls._of(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice) -> People:
        if not isinstance(rows, slice) and np.ndim(rows) != 1:
            raise DataError(f"Expected rows as a slice or an array of one axis, got {rows!r}. Pass people[i : i + 1].")
        rows = rows if isinstance(rows, slice) else _together(rows, len(self))
        return People._of(*(getattr(self, f.name)[rows] for f in fields(self)))

    @property
    def image_shape(self) -> ImageShape:
        """(H, W, 3)."""
        h, w, c = self.images.shape[1:]
        return (h, w, c)

    def _facts(self) -> str:
        h, w, _ = self.image_shape
        groups, persons = len(np.unique(self.subgroup)), len(np.unique(self.persons))
        return f"{len(self)} images of {persons} persons, {groups} group{'s' * (groups != 1)}, {h}×{w} pixels"

    @cached_property
    def image_digests(self) -> tuple[bytes, ...]:
        """The SHA-256, 32 bytes, of each image's values."""
        return tuple(hashlib.sha256(image.tobytes()).digest() for image in self.images)

    def digest(self) -> Digest:
        """Return a SHA-256, 64 hex digits, of images, classes and groups, and of which images show one person.

        How persons and members are called changes nothing that is learned or asked.
        """
        h = hashlib.sha256()
        for name in ("images", "classes"):
            h.update(f"{name}{getattr(self, name).shape}".encode())
            h.update(np.ascontiguousarray(getattr(self, name)).view(np.uint8).data)
        former = h.copy()
        # Earlier versions hashed names, too.
        for name in ("persons", "members"):
            former.update(f"{name}{getattr(self, name).shape}{json.dumps(getattr(self, name).tolist())}".encode())
        _, first, whose = np.unique(self.persons, return_index=True, return_inverse=True)
        h.update(np.ascontiguousarray(first[whose], np.int64).view(np.uint8).data)
        for one in (h, former):
            one.update(f"subgroup{self.subgroup.shape}".encode())
            one.update(np.ascontiguousarray(self.subgroup).view(np.uint8).data)
        return Digest(h.hexdigest(), former.hexdigest())


def _together(rows: NDArray[np.intp] | NDArray[np.bool_], number: int) -> Any:
    """Return rows that lie side by side, in order, as a slice, which copies no photograph; others as they are."""
    wanted = np.flatnonzero(rows) if np.asarray(rows).dtype == np.bool_ and len(rows) == number else np.asarray(rows)
    if not len(wanted) or wanted.dtype.kind not in "iu" or wanted[0] < 0 or wanted[-1] >= number:
        return rows
    return slice(int(wanted[0]), int(wanted[-1]) + 1) if (np.diff(wanted) == 1).all() else rows


def _names(given: Any) -> NDArray[np.str_]:
    """Return names in their one spelling, in an array of the same shape; what has none is refused."""
    plain = np.asarray(given, dtype=object).reshape(-1).tolist()
    names = np.asarray(given, dtype=np.str_)
    found = ["" if _is_missing(one) else canonical(str(one)) for one in plain]
    if "" in found:
        # All of them would be one person, by the name of None.
        raise DataError(
            f"Expected a name for every image, got none for {found.count('')} of {len(found)}; the first is image "
            f"{found.index('')}, counted from 0. Give each person a name of their own, or leave these names out: then "
            "every image is its own person."
        )
    return np.array(found, dtype=np.str_).reshape(names.shape)


def _is_missing(name: object) -> bool:
    return name is None or (isinstance(name, float) and math.isnan(name))


@dataclass(frozen=True, eq=False, repr=False)
class Roster(Value):
    """The people of one action by role; building one proves that no person and no image has two roles.

    Parameters
    ----------
    pool : People
        Queried, and learned from.
    selection : People
        Queried; they serve early stopping, hyper-parameters and refinement.
    verification : People
        Read once per action, for the certificate.
    test : People, optional
        Read once per row, in benchmarks and in the demo only.
    unasked : People, optional
        Members whose images are never sent and cost nothing: δ is learned on the subgroup among them, and the proxy
        learns from their true classes where the settings say so.
    preparation : Preparation, optional
        How everybody's photographs became these images; it goes into the members' file, so that theirs go the same way.

    Raises
    ------
    ActionError
        If a person or an identical image stands in two roles, a role that an action needs is empty, or images are not
        all of one size, the preparation's.
    """

    pool: People
    selection: People
    verification: People
    test: People | None = None
    unasked: People | None = None
    preparation: Preparation | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        seen_person: dict[str, str] = {}
        seen_image: dict[bytes, str] = {}
        for role, people in self.roles().items():
            if not np.any(people.subgroup):
                everybody = {p for o in self.roles().values() for p in o.persons[o.subgroup].tolist()}
                raise ActionError(
                    f"Expected subgroup people in the role {role}, got none. There {_are(len(everybody))} of the "
                    "subgroup in all. Add other people of it, since more images of the same persons do not help and "
                    "identical images are one person, or give this role a larger share."
                )
            for person in np.unique(people.persons).tolist():
                other = seen_person.setdefault(person, role)
                if other != role:
                    raise ActionError(
                        f"Expected every person in one role, got {person!r} in both {other} and {role}. Results "
                        "measured on people whose answers were learned from prove nothing. Give each person one role."
                    )
            for digest in people.image_digests:
                other = seen_image.setdefault(digest, role)
                if other != role:
                    raise ActionError(
                        f"Expected every image in one role, got the same image in both {other} and {role}. "
                        "Remove the duplicate, or give both copies the same person."
                    )
        shapes = {people.image_shape for people in self.roles().values()}
        if len(shapes) != 1:
            raise ActionError(f"Expected images of one size in all roles, got {sorted(shapes)}.")
        if self.preparation is not None and self.preparation.image_shape not in shapes:
            raise ActionError(f"Expected images that were prepared as {self.preparation}, got {sorted(shapes)}.")

    def _facts(self) -> str:
        h, w, _ = self.pool.image_shape
        return ", ".join(f"{len(people)} {role}" for role, people in self.roles().items()) + f", {h}×{w} pixels"

    def roles(self) -> dict[str, People]:
        """Return the people by the name of their role."""
        found = {"pool": self.pool, "selection": self.selection, "verification": self.verification}
        others = {"test": self.test, "unasked": self.unasked}
        return found | {role: people for role, people in others.items() if people is not None}


def _are(persons: int) -> str:
    return "is 1 person" if persons == 1 else f"are {persons} persons"


def counted_persons(people: People) -> dict[str, int]:
    """Return how many persons of each group there are, ``subgroup`` and ``reference``; groups without any are left out.

    One who is in both groups counts in both.
    """
    sides = {"subgroup": people.subgroup, "reference": ~people.subgroup}
    return {name: len(np.unique(people.persons[rows])) for name, rows in sides.items() if rows.any()}


def split_roles(
    people: People,
    *,
    seed: int,
    verification: float = 1 / 3,
    selection: float = 0.2,
    test: float = 0.0,
    preparation: Preparation | None = None,
) -> Roster:
    """Give every person one role at random, stratified by group and class.

    Parameters
    ----------
    people : People
    seed : int
    verification, test : float
        Shares of all persons.
    selection : float
        Share of the *rest*: by default a fifth of those who are queried and learned from.
    preparation : Preparation, optional
        See :class:`Roster`.

    Notes
    -----
    Persons are split, not images; identical images are treated as one person. A person with several classes is
    counted where their first image stands. *Ours.*
    """
    role = draw_roles(people, seed=seed, verification=verification, selection=selection, test=test)
    parts = {name: people[role == name] for name in ("pool", "selection", "verification")}
    return Roster(**parts, test=people[role == "test"] if test else None, preparation=preparation)


def draw_roles(
    people: People,
    *,
    seed: int,
    verification: float = 1 / 3,
    selection: float = 0.2,
    test: float = 0.0,
    given: NDArray[np.str_] | None = None,
) -> NDArray[np.str_]:
    """Return the role of every image, one role for each person, at random.

    Parameters
    ----------
    people, seed, verification, selection, test
        As for :func:`split_roles`.
    given : str array, shape (N,), optional
        Roles that people have already, and keep; "" for those who have none. Whoever shares an image with one of them
        gets the same role. Only the others are drawn, with a seed that follows from how many have one.

    Returns
    -------
    str array, shape (N,)
        ``pool``, ``selection``, ``verification`` or ``test``.

    Raises
    ------
    ActionError
        If a share is out of range.
    """
    _check_seed(seed)
    for name, share in {"verification": verification, "selection": selection, "test": test}.items():
        if not _is_share(share):
            raise ActionError(f"Expected the share of {name} people as a number in [0, 1), got {share!r}.")
    if verification + test >= 1:
        raise ActionError(
            f"Expected verification + test shares below 1, got {verification + test:g}. Lower one: somebody has to be "
            "learned from."
        )
    rest = 1 - verification - test
    shares = [verification, test, rest * selection, rest * (1 - selection)]
    names = np.array(["verification", "test", "selection", "pool"])
    if given is None or not (given != "").any():
        return names[_parts(people, shares, seed)]
    roles = _shared(people, given)
    new = roles == ""
    if new.any():
        # Of newcomers who come one by one, the same seed would give everybody the same role.
        known = len(np.unique(people.persons[~new]))
        roles[new] = names[_parts(people[new], shares, (seed, known))]
    return roles


def _is_share(share: object) -> bool:
    return isinstance(share, Real) and 0 <= float(share) < 1


def _check_seed(seed: object) -> None:
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise ActionError(f"Expected the seed as a whole number of 0 or more, got {seed!r}. 0 will do.")


def _shared(people: People, given: NDArray[np.str_]) -> NDArray[np.str_]:
    """Return roles that people have, and those of whoever shares an image with them; "" for everybody else."""
    unit = units(people).tolist()
    of_unit = {u: role for u, role in zip(unit, given.tolist(), strict=True) if role}
    return np.array([role or of_unit.get(u, "") for u, role in zip(unit, given.tolist(), strict=True)], dtype="U12")


def split_people(people: People, shares: Sequence[float], *, seed: int) -> list[People]:
    """Return one part of the people per share, at random, stratified by group and class.

    Parameters
    ----------
    people : People
    shares : sequence of float
        They add up to 1.
    seed : int

    Notes
    -----
    As for :func:`split_roles`.
    """
    _check_seed(seed)
    if min(shares) < 0 or abs(sum(shares) - 1) > 1e-9:
        raise ActionError(f"Expected shares of 0 or more that add up to 1, got {list(shares)}.")
    rows = _parts(people, shares, seed)
    return [people[rows == i] for i in range(len(shares))]


def _parts(people: People, shares: Sequence[float], seed: int | tuple[int, ...]) -> NDArray[np.int64]:
    """Return the number of the part that each image falls to, stratified by group and class."""
    unit = units(people)
    _, first, row_unit = np.unique(unit, return_index=True, return_inverse=True)
    stratum = people.classes[first] * 2 + people.subgroup[first]
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(first))
    order = order[np.argsort(stratum[order], kind="stable")]
    # Low-discrepancy positions along the strata-sorted order give each stratum its share of every part,
    # even strata of two or three people.
    position = (np.arange(len(first)) * 0.6180339887498949 + rng.random()) % 1.0
    part_of = np.empty(len(first), dtype=np.int64)
    part_of[order] = np.searchsorted(np.cumsum(shares[:-1]), position, side="right")
    return part_of[row_unit]


def units(people: People) -> NDArray[np.int64]:
    """Return one number per image, int64 (N,), equal for images that share a person or their exact bytes.

    Whoever shares an image with somebody is taken for that person (union-find). *Ours.*
    """
    parent = list(range(len(people)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[str | bytes, int] = {}
    for i, (person, image) in enumerate(zip(people.persons.tolist(), people.image_digests, strict=True)):
        for mark in (person, image):
            parent[root(i)] = root(first.setdefault(mark, i))
    return np.array([root(i) for i in range(len(people))], dtype=np.int64)
