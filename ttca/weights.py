"""Published weights: which of them the models of a proxy begin with, and which models begin with none."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ttca.copying import shell_word
from ttca.errors import ConfigError, MissingExtraError, as_sentence
from ttca.kept import load_json
from ttca.proxies.backbones import (
    ONNX,
    SUFFIXES,
    WEIGHTS_FOLDER,
    Backbone,
    family_of,
    hub_backbone,
    in_cache,
    in_folder,
    in_packages,
    read_backbone,
)
from ttca.proxies.conversion import CONVERTIBLE, About, convert_weights
from ttca.settings import DEFAULT_ARCHITECTURES, Settings

if TYPE_CHECKING:
    from ttca.proxies.options import Distilling

__all__ = [
    "LABELS",
    "Start",
    "all_backbones",
    "choose_labelers",
    "choose_start",
    "convert",
    "convertible",
    "listed",
    "suitable_backbones",
]

#: Of what nobody named, only so large a file is taken, so many, and only where images are so near in size: larger ones
#: take hours, and networks made for images seven times as large have made things worse.
_MOST_MEGABYTES, _MOST_MODELS, _MOST_RATIO = 64.0, 3, 3.0
_SPENT = "No query was spent."
#: Where labels of public images are kept, in an action's folder, and what made them.
LABELS = "labels"


@dataclass(frozen=True)
class Start:
    """What the models of a proxy begin with.

    Parameters
    ----------
    architectures : tuple of str
        Those that begin with random weights.
    backbones : tuple of Backbone
        Those that begin with published ones.
    """

    architectures: tuple[str, ...]
    backbones: tuple[Backbone, ...] = ()

    def options(self, options: Distilling) -> Distilling:
        """Return how a proxy that begins so is trained."""
        return replace(options, architectures=self.architectures, backbones=self.backbones)

    @property
    def told(self) -> str:
        """The sentence that says where weights come from."""
        if not self.backbones:
            return f"The proxy begins with random weights: {', '.join(self.architectures)}."
        names = "; ".join(f"{b.name} ({b.source}, license: {b.license})" for b in self.backbones)
        return f"The proxy begins with published weights: {names}."


def choose_start(settings: Settings, folder: Path, *, side: int) -> Start:
    """Return what the proxy of an action begins with.

    What ``weights`` names; where it names nothing, what folder, packages and cache hold. An action that has begun goes
    on with what it began with, whatever has come to be there since.

    Parameters
    ----------
    settings : Settings
    folder : Path
        Of the action.
    side : int
        Height of the images as proxies see them, in pixels.

    Raises
    ------
    ConfigError
        If weights that are named cannot be had, or those are gone that the action began with.
    MissingExtraError
        If ``weights`` names timm's, and timm is not installed.
    """
    architectures = tuple(map(str, settings.architectures))
    if settings.weights == ("none",):
        return Start(architectures)
    try:
        if settings.weights:
            found = [b for word in settings.weights for b in _named(word, architectures)]
        else:
            begun = _begun(folder, settings.recipe)
            found = _suitable(all_backbones(), side) if begun is None else begun
            if architectures != DEFAULT_ARCHITECTURES:
                families = {family_of(a) for a in architectures}
                found = [b for b in found if family_of(b.architecture) in families]
            if begun is None:
                found = found[:_MOST_MODELS]
    except ValueError as error:
        raise ConfigError(f"{as_sentence(error)} {_SPENT}") from None
    begin = {family_of(b.architecture) for b in found}
    rest = tuple(a for a in architectures if family_of(a) not in begin)
    # What nobody chose gives way to what was published.
    return Start(() if found and architectures == DEFAULT_ARCHITECTURES else rest, _once(found))


def choose_labelers(settings: Settings, folder: Path) -> tuple[Backbone, ...]:
    """Return what can label public images that have no class.

    What ``labelers`` names; where it names nothing, what folder, packages and cache hold, of whatever size its images
    were: they are resized. An action that has begun goes on with what it began with.

    Parameters
    ----------
    settings : Settings
    folder : Path
        Of the action.

    Raises
    ------
    ConfigError
        If there is nothing, or weights that are named cannot be had, or those are gone that the action began with.
    """
    try:
        if settings.labelers:
            return _once([b for word in settings.labelers for b in _named(word, ())])
        for path in sorted((folder / LABELS).glob("*.json")):
            return tuple(_again(Backbone.from_dict(b)) for b in load_json(path)["labelers"])
        found = [b for b in all_backbones() if b.megabytes <= _MOST_MEGABYTES]
    except ValueError as error:
        raise ConfigError(f"{as_sentence(error)} {_SPENT}") from None
    if not found:
        raise ConfigError(
            f"Expected published weights to label public images by, got none. Name a file in labelers, put one of at "
            f"most {_MOST_MEGABYTES:g} MB into the folder that {WEIGHTS_FOLDER} names, or give the images classes. "
            f"{_SPENT}"
        )
    return tuple(found[:_MOST_MODELS])


def all_backbones() -> list[Backbone]:
    """Return the weights that are here: in the folder ``TTCA_WEIGHTS``, in packages, in the hub's cache, in that order.

    Raises
    ------
    ValueError
        If some of it cannot be read.
    """
    return list(_once([*in_folder(), *in_packages(), *in_cache()]))


def suitable_backbones(side: int) -> list[Backbone]:
    """Return the weights that are here and suit images of this height as proxies see them, in pixels.

    Raises
    ------
    ConfigError
        If some of what is here cannot be read.
    """
    try:
        return _suitable(all_backbones(), side)
    except ValueError as error:
        raise ConfigError(f"{as_sentence(error)} {_SPENT}") from None


def listed() -> list[tuple[Backbone, str]]:
    """Return the weights that are here, each with the proxies that it fits.

    Raises
    ------
    ConfigError
        If some of it cannot be read.
    """
    try:
        return [
            (b, "any: it brings its network" if b.architecture == ONNX else b.architecture) for b in all_backbones()
        ]
    except ValueError as error:
        raise ConfigError(str(error)) from None


def convertible() -> list[str]:
    """Return the installed packages that ship weights as a pickle which ttca knows how to convert."""
    found = []
    for package in CONVERTIBLE:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.distribution(package)
            found.append(package)
    return found


def convert(file: Path, out: Path, *, architecture: str, license: str, source: str) -> Backbone | None:
    """Convert a pickle (:func:`ttca.proxies.conversion.convert_weights`); of a package that is known, with its facts.

    Raises
    ------
    ConfigError
        If it cannot be converted.
    MissingExtraError
        If torch is not installed.
    """
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("Converting weights", "learn")
    about = CONVERTIBLE.get(str(file), About(source=file.name))
    about = replace(
        about,
        architecture=architecture or about.architecture,
        license=license or about.license,
        source=source or about.source,
    )
    try:
        return convert_weights(file, out, about)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _once(found: Sequence[Backbone]) -> tuple[Backbone, ...]:
    seen: dict[str, Backbone] = {}
    for backbone in found:
        seen.setdefault(backbone.digest, backbone)
    return tuple(seen.values())


def _suitable(found: Sequence[Backbone], side: int) -> list[Backbone]:
    def near(backbone: Backbone) -> bool:
        return backbone.side is None or 1 / _MOST_RATIO <= backbone.side / side <= _MOST_RATIO

    return [b for b in found if b.megabytes <= _MOST_MEGABYTES and near(b)]


def _named(word: str, architectures: tuple[str, ...]) -> list[Backbone]:
    """Return what one entry of ``weights`` names."""
    if word == "hub":
        wanted = [a for a in architectures if a.startswith("timm/")]
        if not wanted:
            raise ValueError(
                f'Expected timm/NAME among the architectures for weights = "hub", got {", ".join(architectures)}.'
            )
        if importlib.util.find_spec("timm") is None:
            raise MissingExtraError("Weights of timm", "learn")
        return [hub_backbone(a, download=True) for a in wanted]
    path = Path(word)
    if path.is_file() or path.suffix in (*SUFFIXES, ".pth", ".pt"):
        if not path.is_file():
            raise ValueError(f"Expected weights at {path}, got nothing there. Correct the path.")
        return [read_backbone(path, architecture=architectures[0] if len(architectures) == 1 else "")]
    here = all_backbones()
    found = [b for b in here if word in (b.name, b.architecture) or (b.found == "package" and word in b.source.split())]
    if found:
        return found
    if word in CONVERTIBLE:
        raise ValueError(
            f"Expected weights of {word} as .safetensors, got none. Convert its file once, into the folder that "
            f"{WEIGHTS_FOLDER} names: ttca weights convert {shell_word(word)} OUT.safetensors"
        )
    named = f"one of {', '.join(b.name for b in here)}" if here else "a name, though none is here"
    raise ValueError(f'Expected weights as "hub", "none", a path, or {named}, got {word!r}. See: ttca weights list')


def _begun(folder: Path, recipe: str) -> list[Backbone] | None:
    """Return what the first proxy that an action kept began with; None where it kept none.

    One of another recipe, such as the winner of an earlier race, says nothing of this one's.
    """
    from safetensors import SafetensorError, safe_open

    kept = [folder / "warm-start.safetensors", *sorted(folder.glob("rounds/proxy-*.safetensors"))]
    for path in (*kept, folder / "proxy.safetensors"):
        if not path.is_file():
            continue
        try:
            with safe_open(path, framework="numpy") as file:
                facts = file.metadata() or {}
            said = json.loads(facts.get("backbones", "[]"))
        except (SafetensorError, OSError, ValueError):
            # Whoever reads the proxy itself says what is wrong with it.
            continue
        # Earlier versions did not write the recipe down.
        if facts.get("recipe", recipe) != recipe:
            continue
        return [_again(Backbone.from_dict(b)) for b in said]
    return None


def _again(backbone: Backbone) -> Backbone:
    """Return a backbone where its file lies now."""
    try:
        backbone.check()
    except ValueError as gone:
        moved = [b for b in all_backbones() if b.digest == backbone.digest]
        if not moved:
            raise ValueError(f"{as_sentence(gone)} The action began with it.") from None
        return replace(backbone, path=moved[0].path)
    return backbone
