"""The action file: TOML read into settings, members, people and a platform, every mistake a sentence."""

from __future__ import annotations

import difflib
import ipaddress
import json
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from ttca.action import CollectiveAction
from ttca.conditions import HONEST_ROW, Measuring
from ttca.data.folder import ListedFile, PeopleTable, has_classes, list_files, load_images, load_people
from ttca.data.tables import COLUMNS, is_name
from ttca.errors import ConfigError, LedgerError
from ttca.images import Images, ImageShape
from ttca.mistakes import Mistakes, made, toml_advice
from ttca.names import canonical, check_class_names, look_alike, twins, unknown_name
from ttca.people import People, Roster, draw_roles, units
from ttca.perturbations import PerturbationSet
from ttca.platforms.addresses import checked_url
from ttca.platforms.base import Platform, PlatformInfo
from ttca.platforms.http import HttpPlatform, Key, TokenFrom, Transport
from ttca.platforms.protocols import create_protocol
from ttca.platforms.remembered import RememberedPlatform
from ttca.pooling.acquaintance import Acquaintance
from ttca.pooling.allowance import Effort
from ttca.pooling.choosing import in_order
from ttca.pooling.hub_client import HubAccess
from ttca.pooling.leases import CheckPlan, LeaseDesk
from ttca.pooling.ledger import Ledger, check_not_lost, open_ledger
from ttca.pooling.pool import Member, Pace
from ttca.pooling.standing import Mirror
from ttca.preparation import Preparation
from ttca.prices import Price
from ttca.progress import Reporter, silent
from ttca.proxies.backbones import SUFFIXES
from ttca.recipes import RECIPE_KEYS
from ttca.renamed import old_keys, old_parameters
from ttca.roles import ROLES_FILE, GivenRoles
from ttca.settings import Settings
from ttca.signing import check_key
from ttca.sitting import is_opened

__all__ = [
    "ActionFile",
    "ContributeSection",
    "ContributionFile",
    "HubSection",
    "PeopleSection",
    "PlatformSection",
    "PoolSection",
    "kind_in_words",
    "platform_info",
    "read_action",
    "read_contribution",
    "read_platform",
    "settings_of",
]

T = TypeVar("T")
C = TypeVar("C", "PlatformSection", "ContributeSection")

#: What decides which other keys there are.
_DECIDING = frozenset({"protocol"})
#: What would do for keys that must be there, so that a file without them is read to its end.
_EXAMPLES: dict[str, Any] = {
    "url": "http://127.0.0.1:8000",
    "classes": ("first", "second"),
    "source": "people.csv",
    "preparation.size": 224,
    "token_from.url": "https://example.org",
    "hub": "http://127.0.0.1:8000",
    "token_variable": "TTCA_HUB_TOKEN",
}
#: What a key of each type holds.
_KINDS = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "tuple[str, ...]": "list of texts",
    "tuple[int, ...]": "list of whole numbers",
    "tuple[float, ...]": "list of numbers",
    "tuple[Architecture, ...]": "list of texts",
    "dict[str, Any]": "table",
    "dict[str, int]": "table of whole numbers",
}
#: What keys of a table were called in earlier versions.
#: What writes a full example of an action's file, and of a member's own.
_INIT, _INIT_OWN = "ttca init", "ttca contribute FILE --init"
_OLD_KEYS = {"action": {"equalise": "equalize"}, "platform": {"authorised_by": "authorized_by"}}


@old_parameters(authorised_by="authorized_by")
@dataclass(frozen=True, kw_only=True)
class PlatformSection:
    """``[platform]``: where the black box is, and how it speaks.

    Parameters
    ----------
    url : str
        Where the API begins. It is ``https://`` unless the platform is on this machine.
    protocol : str
        kserve-v2, kserve-v1, tensorflow-serving, torchserve, huggingface, bentoml, or template for any other JSON API.
        Installed packages may offer more.
    model : str, optional
        The model's name, as the protocol needs it.
    classes : tuple of str
        In the order of the platform's scores.
    version : str, optional
        The model's version, where the platform has several.
    authorized_by : str, optional
        Who allowed these queries; needed off this machine.
    key_variable : str, optional
        The name of the environment variable that holds the key; never the key itself. It begins with ``TTCA_KEY_``.
    key_header : str
        The header in which the key travels.
    key_scheme : str
        What stands before the key; "" for nothing, or "Basic".
    key_in : {"header", "query", "body"}
        Where the key travels: "header", "query", or "body" (a form's field, a JSON member).
    key_names : tuple of str
        What the parts of the key are called there.
    sign : {"aws4"}, optional
        A signature instead of the key, for AWS; needs ttca[aws].
    sign_region : str, optional
        The region that is signed for.
    sign_service : str, optional
        The service that is signed for.
    token_from : table, optional
        An access token instead of the key, from this address. OAuth 2.0, client credentials: url, and if needed scope,
        key_in and fields.
    forwards_to : str, optional
        If url is a gateway on this machine: what is behind it.
    connect_timeout : float
        Seconds until a connection must stand.
    read_timeout : float
        Seconds until an answer must have come.
    max_batch : int
        The most images that the platform takes at once.
    max_response_bytes : int
        Longer responses are not read.
    ca : str, optional
        The certificate file of a platform with an authority of its own. It is looked for beside the action file.
    price_per_1000 : float, optional
        The price of 1000 of what the platform bills, for the dry run.
    currency : str, optional
        Of the price.
    operations : int
        How many of them the platform bills for one image.
    smallest : int, optional
        The smallest side that the platform takes, in pixels.
    options : table
        Of the protocol: its own options, as docs/platforms.md lists them.
    """

    url: str
    classes: tuple[str, ...]
    model: str | None = None
    protocol: str = "kserve-v2"
    version: str | None = None
    authorized_by: str | None = None
    key_variable: str | None = None
    key_header: str = "Authorization"
    key_scheme: str = "Bearer"
    key_in: Literal["header", "query", "body"] = "header"
    key_names: tuple[str, ...] = ()
    sign: Literal["aws4"] | None = None
    sign_region: str | None = None
    sign_service: str | None = None
    token_from: dict[str, Any] | None = None
    forwards_to: str | None = None
    connect_timeout: float = 5.0
    read_timeout: float = 30.0
    max_batch: int = 64
    max_response_bytes: int = 16 * 2**20
    ca: str | None = None
    price_per_1000: float | None = None
    currency: str | None = None
    operations: int = 1
    smallest: int | None = None
    options: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        taken = sorted(set(self.options) & {f.name for f in fields(self)})
        if taken:
            raise ConfigError(
                f"Expected {', '.join(taken)} in [platform], got it in [platform.options]. Move it one table up."
            )
        names = tuple(canonical(name) for name in self.classes)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"Expected every class once in [platform], got {', '.join(twice)} twice. Remove one.")
        check_class_names(names)
        object.__setattr__(self, "classes", names)
        if self.price_per_1000 is None and (self.currency is not None or self.operations != 1):
            raise ConfigError(
                "Expected price_per_1000 beside currency and operations, got none. Write the platform's price, or "
                "remove both."
            )
        _ = self.price
        if self.smallest is not None and self.smallest < 1:
            raise ConfigError(f"Expected smallest as a side of at least 1 pixel, got {self.smallest}. Correct it.")
        # What the protocol cannot use is told when the file is read.
        create_protocol(self.protocol, model=self.model, version=self.version, classes=self.classes, **self.options)
        key = self.key()
        ways = [name for name in ("key_names", "sign", "token_from") if getattr(self, name)]
        if ways and key.variable is None:
            raise ConfigError(
                f"Expected key_variable beside {ways[0]} in [platform], got none. Name the variable with the key."
            )

    def key(self) -> Key:
        """Return where the key is, and how it travels."""
        return Key(
            variable=self.key_variable,
            header=self.key_header,
            scheme=self.key_scheme,
            place=self.key_in,
            names=self.key_names,
            sign=self.sign,
            region=self.sign_region,
            service=self.sign_service,
            token_from=None if self.token_from is None else _token_source(self.token_from),
        )

    def open(self) -> HttpPlatform:
        """Return the platform; nothing is sent yet."""
        return HttpPlatform(
            self.url,
            protocol=self.protocol,
            model=self.model,
            version=self.version,
            classes=self.classes,
            authorized_by=self.authorized_by,
            key=self.key(),
            transport=Transport(
                connect_timeout=self.connect_timeout,
                read_timeout=self.read_timeout,
                max_batch=self.max_batch,
                max_response_bytes=self.max_response_bytes,
                ca=self.ca,
                forwards_to=self.forwards_to,
            ),
            **self.options,
        )

    @property
    def price(self) -> Price | None:
        """What a query costs; None where nobody said."""
        if self.price_per_1000 is None:
            return None
        return Price(per_1000=self.price_per_1000, currency=self.currency or "", operations=self.operations)

    def too_small(self, shape: ImageShape) -> str | None:
        """Return the sentence that images of this shape are smaller than the platform takes, None where not."""
        if self.smallest is None or min(shape[:2]) >= self.smallest:
            return None
        return (
            f"Every image is {shape[0]} × {shape[1]} pixels, and {self.url} takes none with a side below "
            f"{self.smallest}: it would refuse them, perhaps for money. Use larger images, and set "
            "image_shape to their size."
        )

    @property
    def is_loopback(self) -> bool:
        """Whether the platform is on this machine, and no gateway to another one."""
        if self.forwards_to is not None:
            return False
        try:
            host = urlsplit(self.url).hostname or ""
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def _token_source(found: dict[str, Any]) -> TokenFrom:
    types = {f.name: str(f.type) for f in fields(TokenFrom)} | {"fields": "dict[str, Any]"}
    if strange := _strange(found, tuple(types), "key of token_from in [platform]", _INIT):
        raise ConfigError(strange[0])
    if "url" not in found:
        raise ConfigError("Expected the key url in token_from of [platform], got none. Write it there.")
    return TokenFrom(**{k: _value(v, types[k], f"{k} in token_from of [platform]") for k, v in found.items()})


@dataclass(frozen=True, kw_only=True)
class PeopleSection:
    """``[people]``: where the images are, and how roles are shared out.

    ``public`` and ``views`` are tables or folders like ``source``; who their member is does not matter.

    Parameters
    ----------
    source : str
        A table or a folder; docs/people.md has every column.
    preparation : table, optional
        How photographs of any size are made to fit. ``ttca prepare`` prints it, docs/preparation.md explains it.
    verification : float
        Share of the people kept for the certificate, where the table gives no roles.
    selection : float
        Share of the others who choose when to stop learning.
    one_person_per_image : bool
        true: without a column person, every image shows another person, not the member.
    shareable : bool
        true: a hub may send every image to other members; or a column shareable says yes or no.
    public : str, optional
        Images that are never sent: the proxy learns from them first. A table without the column class, or a folder of
        pictures alone, is labeled by published weights (labelers in [action]).
    views : str, optional
        The same kind of images, seen as the subgroup is: perturbations are learned on them.
    columns : tuple of str
        Further columns of the table, by which ttca audit compares people: ["age", "skin"]. Where there are any, roles
        are drawn without a look at anybody's group.
    """

    source: str
    one_person_per_image: bool = False
    shareable: bool = False
    verification: float = 0.5
    selection: float = 0.2
    public: str | None = None
    views: str | None = None
    columns: tuple[str, ...] = ()
    preparation: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        _ = self.prepared
        # As the headers of tables are read.
        names = tuple(canonical(name).casefold() for name in self.columns)
        taken = [name for name in names if name in COLUMNS or names.count(name) > 1 or not is_name(name)]
        if taken:
            raise ConfigError(
                f"Expected in columns of [people] other columns of the table, each once, got {taken[0]!r}. The columns "
                f"{', '.join(COLUMNS)} have meanings of their own (docs/people.md). Rename it in the table, or remove "
                "it here."
            )
        object.__setattr__(self, "columns", names)

    @property
    def prepared(self) -> Preparation | None:
        """How photographs of any size become what the platform takes, None where they are taken as they are."""
        return None if self.preparation is None else Preparation.from_dict(self.preparation)


@dataclass(frozen=True, kw_only=True)
class PoolSection:
    """``[pool]``: who can pay how much.

    Parameters
    ----------
    quota : int
        Queries that each member can pay.
    per_second : int, optional
        The most queries that each member pays in any second.
    per_minute : int, optional
        The most in any minute.
    per_day : int, optional
        The most in any day.
    cap : int, optional
        The most that all members pay together.
    concurrency : int
        Queries in flight at once.
    batch : int
        Images per request.
    ledger : str, optional
        A ledger that several actions share; the password goes in PGPASSWORD. By default each action has its own file.
    overrule : bool, optional
        true: these quotas and this cap replace others in a shared ledger.
    quotas : table of int, optional
        Members who can pay more or less than quota.
    """

    quota: int = 100
    quotas: dict[str, int] | None = None
    per_second: int | None = None
    per_minute: int | None = None
    per_day: int | None = None
    cap: int | None = None
    ledger: str | None = None
    overrule: bool | None = None
    concurrency: int = 64
    batch: int = 16

    def __post_init__(self) -> None:
        quotas: dict[str, int] = {}
        for name, quota in (self.quotas or {}).items():
            if canonical(name) in quotas:
                raise ConfigError(
                    f"Expected every member once in [pool.quotas], got {canonical(name)!r} twice. Remove one."
                )
            if quota < 0:
                raise ConfigError(
                    f"Expected quotas of 0 or more in [pool.quotas], got {quota} for {name!r}. 0: they pay nothing."
                )
            quotas[canonical(name)] = quota
        for one, other in twins(quotas):
            raise ConfigError(
                f"Expected every member once in [pool.quotas], got {one!r} and {other!r}: the same person? Remove one."
            )
        object.__setattr__(self, "quotas", None if self.quotas is None else quotas)


@dataclass(frozen=True, kw_only=True)
class HubSection:
    """``[hub]``: how members on machines of their own are given queries, and checked.

    Parameters
    ----------
    lease_seconds : float
        After so long, a query that did not come back goes to somebody else.
    order : {"random", "stratified"}
        In which order images are handed out: "random", or "stratified" for an equal share of every class and group.
    judged_answers : int
        Others check all of a member's first answers, so many.
    cross_check_share : float
        Later they check a share that falls with their number, to this one.
    url : str, optional
        Where members reach the hub, for invitations.
    install : str, optional
        How members install ttca, likewise for invitations.
    """

    lease_seconds: float = 120.0
    order: Literal["random", "stratified"] = "random"
    judged_answers: int = 100
    cross_check_share: float = 0.05
    url: str | None = None
    install: str | None = None

    def __post_init__(self) -> None:
        if self.url is not None:
            object.__setattr__(self, "url", checked_url(self.url)[0])

    def plan(self) -> CheckPlan:
        """Return how members check each other."""
        return CheckPlan(judged=self.judged_answers, share=self.cross_check_share)


def _hub_table(found: Any) -> Any:
    """Return ``[hub]`` under today's names: earlier versions said leases, queries in each, and an audit's share."""
    if not isinstance(found, dict):
        return found
    new = dict(found)
    old = {key: new.pop(key) for key in ("first_leases", "first_size", "audit_share") if key in new}
    both = sorted(old.keys() | (new.keys() & {"judged_answers", "cross_check_share"}))
    if old and len(both) > len(old):
        raise ConfigError(f"Expected cross-checks in [hub] under their new names alone, got {', '.join(both)}.")
    first = [old.get("first_leases", 20), old.get("first_size", 2)]
    if old.keys() & {"first_leases", "first_size"}:
        if not all(isinstance(n, int) and not isinstance(n, bool) for n in first):
            raise ConfigError(f"Expected whole numbers for first_leases and first_size in [hub], got {first}.")
        new["judged_answers"] = first[0] * first[1]
    if "audit_share" in old:
        new["cross_check_share"] = old["audit_share"]
    return new


@dataclass(frozen=True, kw_only=True)
class ContributeSection:
    """``[contribute]``: which hub a member's machine works for, and how hard.

    Parameters
    ----------
    hub : str
        Where the hub is.
    token_variable : str
        The variable's name; the token itself was given to you with the invitation.
    size : int
        Queries of one request.
    concurrency : int
        Requests at once.
    most_queries : int, optional
        The most queries sent under your key, by all runs of ttca contribute together.
    per_day : int, optional
        The most queries within any 24 hours.
    hub_key : str, optional
        The collective's public key, from the invitation: other leases are refused.
    ca : str, optional
        The certificate file, where the collective has an authority of its own.
    """

    hub: str
    token_variable: str
    size: int = 16
    concurrency: int = 2
    most_queries: int | None = None
    per_day: int | None = None
    hub_key: str | None = None
    ca: str | None = None

    def __post_init__(self) -> None:
        if self.hub_key is not None:
            object.__setattr__(self, "hub_key", check_key(self.hub_key))

    def access(self) -> HubAccess:
        """Return which hub, and how to enter it."""
        return HubAccess(url=self.hub, token_variable=self.token_variable, key=self.hub_key, ca=self.ca)

    def effort(self) -> Effort:
        """Return how much to ask, and how much at once."""
        return Effort(
            size=self.size, concurrency=self.concurrency, most_queries=self.most_queries, per_day=self.per_day
        )


@dataclass(frozen=True)
class ContributionFile:
    """What a member's own machine needs: the hub, and the platform as the member knows it."""

    path: Path
    contribute: ContributeSection
    platform: PlatformSection
    notes: tuple[str, ...] = ()

    @property
    def kept(self) -> Path:
        """Where the member's own books are, and what could not be delivered: a folder beside the file."""
        return self.path.with_suffix(".contribution")


@dataclass(frozen=True)
class ActionFile:
    """One action file, read and checked; opening it spends no query."""

    path: Path
    settings: Settings
    platform: PlatformSection
    people: PeopleSection
    pool: PoolSection
    hub: HubSection
    notes: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where the action lives: the folder of its file, by a name that sentences can say."""
        return Path.cwd() if self.path.parent == Path() else self.path.parent

    @property
    def extras(self) -> tuple[str, ...]:
        """The optional parts of ttca that this file's values call for, whatever is done with it."""
        called = {
            "postgres": (self.pool.ledger or "").startswith("postgresql"),
            "aws": self.platform.sign is not None,
            "onnx": any(str(word).endswith(".onnx") for word in (*self.settings.weights, *self.settings.labelers)),
        }
        return tuple(extra for extra, wanted in called.items() if wanted)

    def open_ledger(self, *, start: str = "ttca run", read_only: bool = False) -> Ledger:
        """Open the ledger, which must have been written to before; the platform is not asked anything.

        Parameters
        ----------
        start : str
            The command that makes it, for the error.
        read_only : bool
            Whether its file is left as it is (:func:`~ttca.pooling.ledger.open_ledger`).

        Raises
        ------
        LedgerError
            If nothing has been asked yet.
        """
        if self.pool.ledger is None and not (self.folder / "ledger.sqlite").is_file():
            check_not_lost(self.folder)
            raise LedgerError(
                f"Expected a ledger in {self.folder}, got none: nothing has been asked yet. Start with: {start}"
            )
        return open_ledger(self.folder, self.pool.ledger, read_only=read_only)

    def open_platform(self) -> HttpPlatform:
        """Return the platform; nothing is sent yet."""
        return self.platform.open()

    def open_hub(self, *, accept_new_version: bool = False) -> tuple[Ledger, LeaseDesk, Mirror]:
        """Read the people, meet the platform (its metadata only) and load what their owners share.

        Raises
        ------
        ConfigError
            If nothing is shareable. Nothing was sent.
        """
        with self.open() as action:
            people = action.asked_people()
            platform, info = action.platform, action.platform.info
        table = self._load(self.people.source, info, self.people.columns)
        shared = np.full(len(table), self.people.shareable) if table.shareable is None else table.shareable
        # By person, not by image: what is asked of a person may have been equalized.
        people = people[~np.isin(people.persons, table.people.persons[~shared])]
        if not len(people):
            raise ConfigError(
                f"Expected images that may be sent to other members, got none in {self.people.source}. Ask their "
                "owners, and write yes in its column shareable, or shareable = true in [people]."
            )
        people = people[in_order(self.hub.order, people.classes, people.subgroup, seed=self.settings.seed)]
        ledger = self.open_ledger()
        desk = LeaseDesk(
            ledger,
            info,
            action=self.settings.name,
            plan=self.hub.plan(),
            lease_s=self.hub.lease_seconds,
        )
        desk.load(
            people.images,
            people.members.tolist(),
            again=getattr(platform, "read_again", None),
            accept_new_version=accept_new_version,
        )
        return ledger, desk, Mirror(ledger, info, people, again=getattr(platform, "read_again", None))

    def _load(self, source: str, info: PlatformInfo, columns: Sequence[str] = ()) -> PeopleTable:
        return load_people(
            self.folder / source,
            image_shape=info.image_shape,
            classes=self.platform.classes,
            one_person_per_image=self.people.one_person_per_image,
            preparation=self.people.prepared,
            columns=columns,
        )

    def _load_public(self, source: str, info: PlatformInfo) -> People | Images:
        if has_classes(self.folder / source):
            return self._load(source, info).people
        return load_images(self.folder / source, image_shape=info.image_shape, preparation=self.people.prepared)

    def open(
        self,
        *,
        measuring: Measuring = HONEST_ROW,
        accept_new_version: bool = False,
        anyway: bool = False,
        reporter: Reporter = silent,
    ) -> CollectiveAction:
        """Return the action of :meth:`open_with_columns`."""
        return self.open_with_columns(
            measuring=measuring, accept_new_version=accept_new_version, anyway=anyway, reporter=reporter
        )[0]

    def open_audit(
        self, *, accept_new_version: bool = False, anyway: bool = False, reporter: Reporter = silent
    ) -> tuple[CollectiveAction, dict[str, NDArray[np.str_]]]:
        """Return the action of :meth:`open_with_columns`, also where its people could not be certified.

        Whoever audits certifies nothing, and need not know yet who is compared with whom.
        """
        settings = replace(
            self.settings, goal="improvement", within=None, accuracy_ratio=None, every_image=False, stopping="curtailed"
        )
        return replace(self, settings=settings).open_with_columns(
            accept_new_version=accept_new_version, anyway=anyway, reporter=reporter
        )

    def open_as_answered(self, *, reporter: Reporter = silent) -> CollectiveAction:
        """Return the action on its platform as it was when it answered: nothing is sent, and nothing can be asked.

        Of several platforms that were accepted one after another it is the one that δ was learned on, else the last.
        """
        inner = self.open_platform()
        with self.open_ledger(read_only=True) as ledger:
            met = Acquaintance(ledger, self.settings.name).accepted()
        sets = (PerturbationSet.load(path) for path in sorted((self.folder / "perturbations").glob("*.safetensors")))
        learned_on = next((known.fingerprint for known in sets), "")
        # Version 0.1 wrote no platform down.
        said = next((info for info in met if info.is_of(learned_on)), met[-1] if met else inner.info)
        return self.open_with_columns(platform=RememberedPlatform(inner, said), reporter=reporter)[0]

    def open_with_columns(
        self,
        *,
        measuring: Measuring = HONEST_ROW,
        platform: Platform | None = None,
        accept_new_version: bool = False,
        anyway: bool = False,
        reporter: Reporter = silent,
    ) -> tuple[CollectiveAction, dict[str, NDArray[np.str_]]]:
        """Read the people, meet the platform (its metadata only) and return the action, and what other columns say.

        The second is, for each of ``columns``, what it says of every image of the pool people, shape (N,).

        Parameters
        ----------
        measuring : Measuring, optional
            Metrics and controls of your own.
        platform : Platform, optional
            By default the one of the action file.
        accept_new_version : bool
            Whether answers are paid again where the platform is another one than before.
        anyway : bool
            Whether to go on where answers do not fit members' own true classes.
        reporter : Reporter
        """
        platform = self.open_platform() if platform is None else platform

        table = self._load(self.people.source, platform.info, self.people.columns).in_order()
        views = None if self.people.views is None else self._load(self.people.views, platform.info).people
        public = None if self.people.public is None else self._load_public(self.people.public, platform.info)
        doubt = table.doubt()
        for sentence in (*self.notes, *table.notes, *(() if doubt is None else (doubt,))):
            reporter.say(sentence)
        given = self.given_roles()
        self._check_spelled_as_before(table.people)
        roles = self._roles(table, given, platform.info)
        if given.drawn and given.drawn != self._drawing():
            reporter.say(
                f"Everybody keeps the role of the first query ({ROLES_FILE}). Seed, verification and selection count "
                "for people who have joined since."
            )
        action = CollectiveAction(
            self.folder,
            platform=platform,
            members=self.members(table.people),
            roster=self._roster(table.people, roles),
            settings=self.settings,
            public=public,
            views=views,
            measuring=measuring,
            cap=self.pool.cap,
            pace=Pace(concurrency=self.pool.concurrency, batch=self.pool.batch),
            ledger=self.pool.ledger,
            overrule=self.pool.overrule,
            accept_new_version=accept_new_version,
            anyway=anyway,
            may_be_shown=table.agreed(),
            reporter=reporter,
        )
        now = given.with_people(table.people, roles, self._drawing())
        if now != given:
            now.save(self.folder)
        return action, {name: said[roles == "pool"] for name, said in table.columns.items()}

    def members(self, people: People) -> list[Member]:
        """Return every member of the people's table with their quota."""
        return self.payers(np.unique(people.members).tolist())

    def payers(self, members: Collection[str]) -> list[Member]:
        """Return who pays of these members, who must be all of the people's table, with their quota."""
        quotas, names = self.pool.quotas or {}, sorted(members)
        strangers = sorted(set(quotas) - set(names))
        if strangers:
            raise ConfigError(
                f"{_who(strangers[0], names)}Expected [pool.quotas] to name members of {self.people.source}, got "
                f"{', '.join(strangers[:5])}{f' and {len(strangers) - 5} more' if len(strangers) > 5 else ''}. "
                "Correct the names, or add their images."
            )
        pool = self.pool
        return [
            Member(
                n,
                quotas.get(n, pool.quota),
                self.platform.key_variable,
                per_second=pool.per_second,
                per_minute=pool.per_minute,
                per_day=pool.per_day,
            )
            for n in names
            if quotas.get(n, pool.quota) != 0
        ]

    def list_files(self, source: str) -> list[ListedFile]:
        """Return the file and the member of every image of one of the action's tables, without opening any.

        Raises
        ------
        DataError
            If the table cannot be read.
        """
        columns = self.people.columns if source == self.people.source else ()
        bare = source == self.people.public and not has_classes(self.folder / source)
        return list_files(
            self.folder / source,
            classes=self.platform.classes,
            one_person_per_image=self.people.one_person_per_image,
            columns=columns,
            bare=bare,
        )

    def given_roles(self) -> GivenRoles:
        """Return who has which role since the first query; nobody where none was paid yet."""
        given = GivenRoles.read(self.folder)
        if self.pool.ledger is None and not (self.folder / "ledger.sqlite").is_file():
            return given.cleared()
        with open_ledger(self.folder, self.pool.ledger, read_only=True) as ledger:
            # On a ledger of its own, an action may have had another name.
            paid = ledger.paid(action=None if self.pool.ledger is None else self.settings.name)
        return replace(given, asked=True) if any(paid.values()) else given.cleared()

    def _check_spelled_as_before(self, people: People) -> None:
        """Raise where a member is called nearly as one who is in the ledger: they would have a second quota."""
        if self.pool.ledger is None and not (self.folder / "ledger.sqlite").is_file():
            return
        with open_ledger(self.folder, self.pool.ledger, read_only=True) as ledger:
            before = {balance.member for balance in ledger.balances()}
            new = sorted(set(np.unique(people.members).tolist()) - before)
            ledger.check_nobody_left(new)
        alike = {look_alike(other): other for other in sorted(before)} if new else {}
        for name in new:
            if (other := alike.get(look_alike(name))) is not None:
                raise ConfigError(
                    f"Expected every member in the spelling that the ledger has, got {name!r} in "
                    f"{self.people.source} and {other!r} before: the same person? They would have two quotas. Write "
                    f"{other!r} again, or tell them apart by more than case, width and blanks. Nothing was sent."
                )

    def check_member(self, name: str) -> str:
        """Return a member's name in its one spelling; raise ConfigError where the table of people has none."""
        names = sorted({listed.member for listed in self.list_files(self.people.source)})
        if canonical(name) not in names:
            raise ConfigError(
                unknown_name(
                    "the member", name, names, listed=f"{self.people.source} has all.", otherwise="Or add their images."
                )
            )
        return canonical(name)

    def _roles(self, table: PeopleTable, given: GivenRoles, info: PlatformInfo) -> NDArray[np.str_]:
        """Return the role of every image of a table, as it says, as they have it or as they are drawn."""
        people = table.people
        had, said = given.of(people), np.full(len(table), "", "U12") if table.roles is None else table.roles
        if given.roles and is_opened(self.folder):
            self._check_nobody_joined(people.persons[had == ""])
        had = np.where((had == "") & given.came_back(people.members), "pool", had)
        self._check_nobody_moved(people, had, said)
        roles = draw_roles(people, **self._drawing(), given=np.where(said == "", had, said))
        if given.asked and not is_opened(self.folder):
            # Somebody asked about them alone, as `ttca ask` does: they do not verify.
            drawn = (roles == "verification") & (said == "")
            known, unit = self._answered(people, info) & drawn, units(people)
            roles[np.isin(unit, unit[known])] = "pool"
        return roles

    def _check_nobody_moved(self, people: People, had: NDArray[np.str_], said: NDArray[np.str_]) -> None:
        """Raise where the table gives somebody another role than the one they have had since the first query."""
        moved = np.flatnonzero((had != "") & (said != "") & (had != said))
        if len(moved):
            first, persons = moved[0], len(np.unique(people.persons[moved]))
            raise ConfigError(
                f"Expected everybody in the role that they have had since the first query ({ROLES_FILE}), got another "
                f"one in the column role of {self.people.source} for {persons:,} person{'s' * (persons != 1)}. The "
                f"first is {people.persons[first]}: {had[first]}, and now {said[first]}. Take the column out again, "
                "leave its cells empty, or write these roles. Other roles need a new action. Nothing was sent."
            )

    def _check_nobody_joined(self, new: NDArray[np.str_]) -> None:
        """Raise where somebody has come since people began to verify."""
        names = np.unique(new).tolist()
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ConfigError(
                f"Expected in {self.people.source} the people who were there when verification began, got others: "
                f"{', '.join(names[:3])}{more}. They are new, or were forgotten since. Take them out again; whoever is "
                "new can take part in a new action."
            )

    def _answered(self, people: People, info: PlatformInfo) -> NDArray[np.bool_]:
        """Whether the pool has an answer about each image, bool (N,)."""
        with open_ledger(self.folder, self.pool.ledger, read_only=True) as ledger:
            prints = dict.fromkeys((info.fingerprint, info.former_fingerprint))
            keys = [ledger.keys(people.images, fingerprint=one, epoch="pool") for one in prints]
            there = ledger.answered([key for some in keys for key in some])
        return np.array([any(key in there for key in alike) for alike in zip(*keys, strict=True)], np.bool_)

    def _drawing(self) -> dict[str, Any]:
        return {
            "seed": self.settings.seed,
            "verification": self.people.verification,
            "selection": self.people.selection,
        }

    def _roster(self, people: People, roles: NDArray[np.str_]) -> Roster:
        parts = {role: people[roles == role] for role in ("pool", "selection", "verification")}
        unasked = people[roles == "unasked"]
        return Roster(**parts, unasked=unasked if len(unasked) else None, preparation=self.people.prepared)


def _who(name: str, names: Sequence[str]) -> str:
    """Return the question whether a member was meant whose name is like one that none has."""
    near = [n for n in names if look_alike(n) == look_alike(name)] or difflib.get_close_matches(
        canonical(name), names, n=1
    )
    return f"Did you mean {near[0]!r}? " if near else ""


def read_action(path: Path | str) -> ActionFile:
    """Read an action file, or the ``action.toml`` of a folder.

    Raises
    ------
    ConfigError
        If it is missing, is not TOML, or a table, key or value is not as expected. Nothing was sent.
    """
    path = Path(path)
    path, found, notes = _toml(path, "an action file", _INIT)
    if "contribute" in found:
        raise ConfigError(
            f"Expected an action file at {path}, got a member's own file for a hub. ttca contribute takes it; "
            "action files are their organizers'."
        )
    mistakes, tables = Mistakes(str(path)), {"action": {}, "pool": {}, "hub": {}} | found
    _check_tables(
        mistakes, found, ("action", "platform", "people", "pool", "hub"), ("platform", "people"), path, template=_INIT
    )
    settings = mistakes.of(lambda: settings_of(tables["action"], path))
    platform = _read(mistakes, PlatformSection, tables, "platform", path, template=_INIT)
    people = _read(mistakes, PeopleSection, tables, "people", path, template=_INIT)
    pool = _read(mistakes, PoolSection, tables, "pool", path, template=_INIT)
    hub = mistakes.of(lambda: _section(HubSection, _hub_table(tables["hub"]), "hub", path, template=_INIT))
    if settings is None or platform is None or people is None or pool is None or hub is None or mistakes.sentences:
        raise mistakes.error()
    return ActionFile(path, settings, _beside(platform, path), people, pool, hub, notes)


def settings_of(action: dict[str, Any], path: Path = Path("action.toml")) -> Settings:
    """Return the settings of an action file's ``[action]``.

    Raises
    ------
    ConfigError
        If a key or value is not as expected.
    """
    return _pinned(_with_weights(_section(Settings, action, "action", path, template=_INIT), path), action)


def read_contribution(path: Path | str) -> ContributionFile:
    """Read a member's own file: ``[contribute]`` and ``[platform]``.

    Raises
    ------
    ConfigError
        If it is missing, is not TOML, or a table, key or value is not as expected. Nothing was sent.
    """
    path = Path(path)
    path, found, notes = _toml(path, "your own file for a hub", _INIT_OWN)
    mistakes, tables = Mistakes(str(path)), ("contribute", "platform")
    _check_tables(mistakes, found, tables, tables, path, template=_INIT_OWN)
    own = _read(mistakes, ContributeSection, found, "contribute", path, template=_INIT_OWN)
    platform = _read(mistakes, PlatformSection, found, "platform", path, template=_INIT_OWN)
    if own is None or platform is None or mistakes.sentences:
        raise mistakes.error()
    return ContributionFile(path, _beside(own, path), _beside(platform, path), notes)


def read_platform(path: Path | str, reporter: Reporter = silent) -> PlatformSection:
    """Read ``[platform]`` of a member's own file, or of an action file; other tables are left alone.

    The reporter says which keys stand there under earlier names.

    Raises
    ------
    ConfigError
        If it is missing, is not TOML, or a key or value is not as expected. Nothing was sent.
    """
    path, found, notes = _toml(Path(path), "your own file with [platform]", _INIT_OWN)
    if "platform" not in found:
        raise ConfigError(
            f"Expected the table [platform] in {path}, got none. docs/platforms.md says what stands in it; {_INIT_OWN} "
            "writes one."
        )
    for sentence in notes:
        reporter.say(sentence)
    return _beside(_section(PlatformSection, found["platform"], "platform", path, template=_INIT_OWN), path)


def platform_info(path: Path | str, reporter: Reporter = silent) -> PlatformInfo:
    """Return what the platform of a member's own file says of itself; asks for its metadata at most, no query.

    Raises
    ------
    ConfigError, TransportError
        If the file cannot be read, or the platform cannot be reached where it has to be.
    """
    with read_platform(path, reporter).open() as platform:
        return platform.info


def _toml(path: Path, what: str, command: str) -> tuple[Path, dict[str, Any], tuple[str, ...]]:
    """Return where a file is, its tables under today's names, and a sentence for each key under an earlier one."""
    try:
        if _is_bundle(path):
            raise ConfigError(
                f"Expected {what} at {path}, got a ZIP or a bundle of evidence. Whoever was given one checks it with: "
                "python check.py"
            )
        if path.is_dir():
            path = path / "action.toml"
        # utf-8-sig: some editors put a byte-order mark in front.
        found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"Expected {what} at {path}, got nothing there. Write one with: {command}") from None
    except (OSError, ValueError, RecursionError) as error:  # tomllib's own are ValueErrors, and not its only ones
        raise ConfigError(
            f"Expected TOML in {path}, got a file that cannot be read: {error}.{toml_advice(str(error))}"
        ) from None
    notes: tuple[str, ...] = ()
    for table, names in _OLD_KEYS.items():
        if isinstance(found.get(table), dict):
            found[table], said = old_keys(found[table], f"[{table}] of {path}", **names)
            notes += said
    return path, found, notes


def _is_bundle(path: Path) -> bool:
    if path.is_dir():
        return (path / "manifest.json.sig").is_file() and not (path / "action.toml").is_file()
    with suppress(FileNotFoundError), path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"
    return False


def _check_tables(
    mistakes: Mistakes,
    found: Mapping[str, Any],
    known: tuple[str, ...],
    needed: tuple[str, ...],
    path: Path,
    *,
    template: str,
) -> None:
    """Note which tables of a file are not known, and which are missing; ``template`` is the command that writes all."""
    strange = _strange(found, known, f"table in {path}", template)
    mistakes.tell(*strange)
    missing = [table for table in needed if table not in found and not _is_meant(table, strange)]
    mistakes.tell(
        *(f"Expected the table [{table}] in {path}, got none. {template} writes a full example." for table in missing)
    )


def _read(
    mistakes: Mistakes, kind: type[T], tables: Mapping[str, Any], table: str, path: Path, *, template: str
) -> T | None:
    """Return a table's section; None where it is not there, or something is wrong with it, which is noted."""
    return (
        mistakes.of(lambda: _section(kind, tables[table], table, path, template=template)) if table in tables else None
    )


def _strange(found: Mapping[str, Any], known: tuple[str, ...], what: str, template: str) -> list[str]:
    """Return a sentence for each name that is not known."""
    listed = f"{template} writes a file that explains all of them."
    return [unknown_name(f"each {what}", name, known, listed=listed) for name in found if name not in known]


def _is_meant(name: str, strange: Collection[str]) -> bool:
    """Whether a name is missing that is probably there, misspelt."""
    return any(sentence.startswith(f"Did you mean {name!r}?") for sentence in strange)


def _section(kind: type[T], found: Any, table: str, path: Path, *, template: str) -> T:
    """Return what a table says; raise one error with all that is wrong with it."""
    if not isinstance(found, dict):
        raise ConfigError(f"Expected [{table}] in {path} to be a table, got {type(found).__name__}.")
    mistakes = Mistakes(f"[{table}] of {path}")
    known = fields(kind)  # type: ignore[arg-type]
    # A file names its architectures; factories are for Python.
    types = {f.name: str(f.type).replace("Architecture", "str") for f in known}
    strange = _strange(found, tuple(types), f"key of [{table}]", template)
    mistakes.tell(*strange)
    values: dict[str, Any] = {}
    for key in (key for key in found if key in types):
        value = mistakes.of(partial(_value, found[key], types[key], f"{key} in [{table}] of {path}"))
        values |= {} if value is None else {key: value}
    needed = [f.name for f in known if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in needed if name not in found and not _is_meant(name, strange)]
    mistakes.tell(*(f"Expected the key {name} in [{table}] of {path}, got none. Write it there." for name in missing))
    # What is wrong with the others is said too: what could not be read stands as its default, or as an example.
    doubtful = [name for name in types if (name in found and name not in values) or _is_meant(name, strange)]
    given = {name: _EXAMPLES[name] for name in needed} | values
    section, said = made(kind, given, _EXAMPLES, {*doubtful, *missing}, _DECIDING)
    mistakes.tell(*said)
    if section is None or mistakes.sentences:
        raise mistakes.error()
    return section


def _beside(section: C, path: Path) -> C:
    """Return a section whose certificate file is looked for beside the file that names it."""
    return section if section.ca is None else replace(section, ca=str(path.parent / section.ca))


def _with_weights(settings: Settings, path: Path) -> Settings:
    """Return settings whose files of weights are looked for beside the file that names them."""

    def beside(words: Sequence[str]) -> tuple[str, ...]:
        return tuple(str(path.parent / word) if Path(word).suffix in SUFFIXES else word for word in words)

    return replace(settings, weights=beside(settings.weights), labelers=beside(settings.labelers))


def _pinned(settings: Settings, written: Mapping[str, Any]) -> Settings:
    """Return settings that know which of their defaults somebody wrote by hand, where recipes could change them."""
    if not settings.races:
        return settings
    return replace(settings, pinned=tuple(sorted({*settings.pinned, *(set(written) & set(RECIPE_KEYS))})))


def _value(value: Any, kind: str, where: str) -> Any:
    """Return a TOML value as the field's type, or say what was expected."""
    allowed, written = {part.strip() for part in kind.split("|")}, value
    if not _fits(value):
        raise ConfigError(f"Expected {where} within 64 bits, as TOML has whole numbers, got a larger one.")
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value is True or value is False:
        ok = "bool" in allowed
    elif isinstance(value, str):
        ok = "str" in allowed or kind.startswith("Literal")
    elif whole:
        ok = "int" in allowed or "float" in allowed
        value = value if "int" in allowed else float(value)
    elif isinstance(value, float):
        ok = "float" in allowed
    elif isinstance(value, list):
        kinds = {"tuple[int, ...]": (int,), "tuple[str, ...]": (str,), "tuple[float, ...]": (int, float)}
        inner = next((types for name, types in kinds.items() if name in allowed), None)
        ok = inner is not None and all(type(v) in inner for v in value)
        value = tuple(map(float, value)) if ok and inner == (int, float) else tuple(value)
    elif isinstance(value, dict):
        ok = "dict[str, Any]" in allowed or (
            "dict[str, int]" in allowed and all(type(v) is int for v in value.values())
        )
    else:
        ok = False
    if not ok:
        # What stands where the key is described may be the key.
        shown = (
            "something else (not shown)"
            if where.startswith("key_")
            else json.dumps(written, ensure_ascii=False, default=str)
        )
        raise ConfigError(
            f"Expected {where} to be {_a(kind_in_words(kind))}, got {shown}.{_write_it(written, allowed)}"
        )
    return value


def kind_in_words(annotation: str) -> str:
    """Return in words what a key of this type holds.

    Examples
    --------
    >>> kind_in_words("tuple[int, ...] | None"), kind_in_words("Literal['a', 'b'] | float")
    ('list of whole numbers', '"a" or "b" or number')
    """
    words = []
    for part in re.split(r" \| (?![^\[]*\])", annotation.replace("'", '"')):
        if part.startswith("Literal["):
            words += [word.strip() for word in part.removeprefix("Literal[").removesuffix("]").split(",")]
        elif part != "None":
            words.append(_KINDS[part])
    return " or ".join(words)


def _a(words: str) -> str:
    """Return kinds with their articles; words in quotes, true and false have none."""
    return " or ".join(
        word if word[0] == '"' or word in ("true or false", "true", "false") else f"a {word}"
        for word in words.split(" or ")
    )


def _write_it(value: Any, allowed: set[str]) -> str:
    """Return how to write a value that is of another kind, where that is known."""
    if "str" in allowed and not isinstance(value, list | dict):
        return " Put it in quotes."
    if isinstance(value, str) and allowed & {"int", "float", "bool"}:
        return " Write it without quotes."
    lists = {"tuple[int, ...]": "[2, 4, 8]", "tuple[str, ...]": '["one", "two"]', "tuple[float, ...]": "[0.5, 1.0]"}
    return next((f" Write a list such as {shown}." for kind, shown in lists.items() if kind in allowed), "")


def _fits(value: Any) -> bool:
    """Whether every whole number in a TOML value is one; Python would read, and then choke on, any length."""
    if isinstance(value, list | dict):
        return all(_fits(v) for v in (value.values() if isinstance(value, dict) else value))
    return not isinstance(value, int) or -(2**63) <= value < 2**63
