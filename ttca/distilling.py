"""Distilling: from what the platform said to the proxy, round by round, and how far the proxy can be trusted."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ttca.answers import Answers
from ttca.asking import Known, Questions, TransferSet
from ttca.certificates import clopper_pearson_interval
from ttca.errors import WorthlessProxyError
from ttca.images import Images
from ttca.kept import digest, load_arrays
from ttca.learning import Learner, Primer, targets_of
from ttca.people import People
from ttca.private import private_folder
from ttca.values import Value
from ttca.workshop import Workshop

if TYPE_CHECKING:
    from ttca.proxies.distillation import Proxy

__all__ = [
    "WARM_START",
    "Distilled",
    "Fidelity",
    "best_fidelity",
    "distil",
    "kept_copies",
    "learn_inputs",
    "weights_digest",
]

#: What the proxy learned from true classes alone.
WARM_START = "warm-start.safetensors"
#: With fewer, more of them may be all that a worthless proxy needs.
_FEW_EPOCHS = 20


@dataclass(frozen=True)
class Fidelity:
    """How often proxy and platform name the same class on selection people, with two-sided 95 % intervals."""

    subgroup: float
    subgroup_interval: tuple[float, float]
    reference: float
    reference_interval: tuple[float, float]

    @property
    def mean(self) -> float:
        """The mean of the two rates, of one where the other is among nobody; NaN where both are."""
        rates = [rate for rate in (self.subgroup, self.reference) if not math.isnan(rate)]
        return sum(rates) / len(rates) if rates else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; a rate among nobody (NaN) becomes None."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}


@dataclass(frozen=True, eq=False, repr=False)
class Distilled(Value):
    """The last proxy and all it learned from.

    Parameters
    ----------
    proxy : Proxy
    warm : Proxy or None
        What it learned from true classes alone, where it began with that.
    transfer : TransferSet
        With every round of altered copies.
    fidelity : Fidelity
    seconds : float
        That the last training took, in whichever process did it.
    threads : int or None
        Of the processor, in which it was done; None where an earlier version did it.
    doubt : str or None
        Why the proxy is worthless, where it knows no more of the platform than its most frequent answer.
    """

    proxy: Proxy
    warm: Proxy | None
    transfer: TransferSet
    fidelity: Fidelity
    seconds: float
    threads: int | None
    doubt: str | None

    @cached_property
    def weights(self) -> str:
        """A SHA-256, 64 hex digits, of the proxy's weights."""
        return weights_digest(self.proxy)

    @property
    def asked_nothing(self) -> bool:
        """Whether it learned no answer."""
        return self.weights == self.warm_weights

    @cached_property
    def warm_weights(self) -> str:
        """The same of the warm start's; empty where there is none."""
        return weights_digest(self.warm)

    def check_worth(self) -> None:
        """Raise WorthlessProxyError where there is a doubt."""
        if self.doubt is not None:
            raise WorthlessProxyError(self.doubt)


def distil(shop: Workshop, known: Known, questions: Questions, transfer: TransferSet) -> Distilled:
    """Train the proxy on the transfer set, or read it back.

    With rounds, the platform is asked about altered copies in between: each round learns δ against the proxy of
    the round before, asks what the platform says about it, and trains anew on all answers so far.
    """
    learner = shop.learner
    primer = learner.primer(known.public, known.labeled)
    warm = None if primer is None else learner.warm_start(shop.folder / WARM_START, primer, questions.judges)
    proxy = warm
    facts: dict[str, str] = {}
    if warm is None or len(transfer.pool):
        proxy, facts = _trained(shop, primer, transfer, questions.judges, warm, last=not questions.rounds)
    for turn, people in enumerate(questions.rounds, start=1):
        if proxy is None:  # pragma: no cover - without public data the first round needs a pool, which was checked
            raise WorthlessProxyError("Expected a proxy to learn δ against, got none. Lower altered or refine.")
        inputs = learn_inputs(shop, known, questions, weights_digest(proxy))
        path = _copies_path(shop.folder, turn)
        private_folder(path.parent)
        images = learner.altered_copies(
            path,
            proxy,
            people,
            known.helped,
            questions.selection,
            inputs=digest("altered", turn, inputs, transfer.digest, people.digest()),
            turn=turn,
        )
        answers = shop.queries.ask(images, purpose="pool", owners=people.members.tolist())
        transfer = transfer.joined(replace(people, images=images), answers)
        proxy, facts = _trained(shop, primer, transfer, questions.judges, warm, last=turn == len(questions.rounds))
    if proxy is None:  # pragma: no cover - as above
        raise WorthlessProxyError("Expected something to learn a proxy from, got nothing. Lower altered or refine.")
    if not facts:
        # Where every query goes to the platform itself, the proxy is the warm start.
        facts = _metadata(shop.folder / WARM_START)
    predicted = _predicted(learner, proxy, transfer)
    return Distilled(
        proxy, warm, transfer, _fidelity(transfer, predicted), float(facts.get("seconds", "nan")),
        int(facts["threads"]) if "threads" in facts else None, _doubt(transfer, predicted, shop.settings.epochs),
    )  # fmt: skip


def best_fidelity(learner: Learner, distilled: Distilled) -> Fidelity:
    """Return a proxy's fidelity, or that of the one of its models that agrees most in the mean, where that is more.

    δ moves all of its models, so one of several that knows the platform is not lost in what they say together [ours].
    """
    proxy, transfer, found = distilled.proxy, distilled.transfer, [distilled.fidelity]
    for place in range(len(proxy.models)) if len(proxy.models) > 1 else ():
        found.append(_fidelity(transfer, _predicted(learner, proxy.alone(place), transfer)))
    return max(found, key=lambda fidelity: fidelity.mean)


def kept_copies(folder: Path, turn: int, *, races: bool) -> Images | None:
    """Return the altered copies of a round, where they were made already: by a candidate, or without a race at home."""
    for home in sorted(folder.glob("candidates/*")) if races else (folder,):
        stored = load_arrays(_copies_path(home, turn), None)
        if stored is not None:
            return stored["images"]
    return None


def learn_inputs(shop: Workshop, known: Known, questions: Questions, weights: str) -> str:
    """Return a digest, 64 hex digits, of all that decides what is learned against a proxy of these weights."""
    settings = shop.settings
    facts = shop.learner.delta_facts(
        # As version 0.1 named it, so that what it kept is found.
        platform=shop.info.former_fingerprint,
        epsilons=sorted(settings.epsilons),
        refine=settings.refine,
    )
    return digest("learn", weights, known.helped.digest(), questions.selection.digest(), facts)


def weights_digest(proxy: Proxy | None) -> str:
    """Return a SHA-256, 64 hex digits, of a proxy's weights; empty for none."""
    return "" if proxy is None else proxy.digest()


def _copies_path(folder: Path, turn: int) -> Path:
    return folder / "rounds" / f"altered-{turn}.safetensors"


def _trained(
    shop: Workshop, primer: Primer | None, transfer: TransferSet, judges: People, warm: Proxy | None, *, last: bool
) -> tuple[Proxy, dict[str, str]]:
    """Return the proxy of one transfer set; only the last one stands in the folder itself.

    Selection people are asked about images as they are. Their answers choose the epoch where the proxy learns from
    such images too; chosen by them, a proxy that learns from altered copies would stop before it has. Nobody is asked
    about their equalized images: where the proxy learns from such, their true classes choose the rates.
    """
    learner = shop.learner
    name = "proxy.safetensors" if last else f"rounds/proxy-{transfer.altered}.safetensors"
    selection = transfer.selection.images, targets_of(transfer.selection_answers)
    return learner.train(
        shop.folder / name,
        (transfer.pool.images, targets_of(transfer.answers)),
        selection=(judges.images, learner.true(judges)) if transfer.equalized else selection,
        keep_best=not transfer.altered and not transfer.equalized,
        initial=warm,
        replay=primer,
        inputs=digest("distil", transfer.digest, *learner.judged_by(judges), learner.facts(), weights_digest(warm)),
        what="distilling the proxy",
    )


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return dict(file.metadata() or {})


def _predicted(learner: Learner, proxy: Proxy, transfer: TransferSet) -> dict[str, np.ndarray[Any, Any]]:
    return {
        "subgroup": learner.predict(proxy, transfer.selection.images),
        "reference": learner.predict(proxy, transfer.volunteers.images),
    }


def _fidelity(transfer: TransferSet, predicted: dict[str, np.ndarray[Any, Any]]) -> Fidelity:
    from ttca.proxies.fidelity import agreement

    found: list[tuple[float, tuple[float, float]]] = []
    for name, answers in (("subgroup", transfer.selection_answers), ("reference", transfer.volunteers_answers)):
        a = agreement(predicted[name], answers.labels)
        low, high = clopper_pearson_interval(a.agree, a.n)
        found.append((a.rate, (float(low), float(high))))
    (subgroup, s_interval), (reference, r_interval) = found
    return Fidelity(subgroup, s_interval, reference, r_interval)


def _doubt(transfer: TransferSet, predicted: dict[str, np.ndarray[Any, Any]], epochs: int) -> str | None:
    """Return why the proxy knows no more of the platform than its most frequent answer to selection people, or None.

    Members alone are the first measure. Where most of them get one and the same answer, which is how bad it can
    be, volunteers' answers tell a proxy that knows the platform from one that always says the same.
    """
    from ttca.proxies.fidelity import agreement

    members = predicted["subgroup"], transfer.selection_answers
    everybody = (
        np.concatenate([predicted["subgroup"], predicted["reference"]]),
        Answers.concatenate([members[1], transfer.volunteers_answers], classes=transfer.answers.classes),
    )
    constant = agrees = asked = 0
    for named, answers in (members, everybody):
        labels = answers.labels[answers.answered]
        if not len(labels):
            return (
                "Expected answers about selection people, got none that name a class. Without them, nobody can tell "
                "whether the proxy is any good. Verification queries would be wasted now."
            )
        constant, agrees, asked = int(np.bincount(labels).max()), agreement(named, answers.labels).agree, len(labels)
        if agrees > constant:
            return None
    few = "" if epochs >= _FEW_EPOCHS else f"{epochs} {'epoch is' if epochs == 1 else 'epochs are'} few: raise epochs. "
    return (
        f"Expected a proxy that agrees with the platform on more than {constant} of {asked} selection people, got "
        f"{agrees}. To say the platform's most frequent answer of everybody is enough for {constant}. {few}Ask more "
        "or different queries, or choose another architecture. Verification queries would be wasted now."
    )
