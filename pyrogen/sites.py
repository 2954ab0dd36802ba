"""Programs, and the kinds of sites in their traces."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from pyro.distributions import Delta, Unit
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample

__all__ = [
    "PARTICLES",
    "Generating",
    "Program",
    "is_data",
    "is_enumerated",
    "is_latent",
    "is_point",
    "is_shared",
    "nothing",
    "or_nothing",
    "plates_of_data",
    "sample_sites",
    "unwrapped",
]

Program = Callable[..., Any]
"""Any callable that makes Pyro statements: a function, a bound method, a ``PyroModule``, an autoguide."""

PARTICLES = "num_particles_vectorized"


def nothing(*args: Any, **kwargs: Any) -> None:
    """The guide of a model without latent variables."""


def or_nothing(guide: Program | None) -> Program:
    """Read a missing guide as the guide without sites."""
    return nothing if guide is None else guide


def sample_sites(trace: Trace) -> Iterator[dict[str, Any]]:
    """Go through a trace's sample sites, observed ones included."""
    return (site for site in trace.nodes.values() if site["type"] == "sample")


def is_data(site: Mapping[str, Any]) -> bool:
    """Tell whether a trace's site holds observed data; ``pyro.factor`` and ``pyro.deterministic`` sites do not."""
    return (
        site["type"] == "sample"
        and site["is_observed"]
        and not isinstance(site["fn"], Unit)
        and not site["infer"].get("_deterministic")
    )


def is_latent(site: Mapping[str, Any]) -> bool:
    """Tell whether a trace's site is a random variable that was drawn and not observed."""
    return (
        site["type"] == "sample"
        and not site["is_observed"]
        and not site_is_subsample(site)
        and not isinstance(site["fn"], Unit)
    )


def plates_of_data(sites: Iterable[Mapping[str, Any]]) -> set[str]:
    """Name the plates that data lie in."""
    return {frame.name for site in sites if is_data(site) for frame in site["cond_indep_stack"]}


def is_shared(site: Mapping[str, Any], plates: Collection[str]) -> bool:
    """Tell whether a site lies in none of the plates of data, so that all data share it."""
    return not any(frame.name in plates for frame in site["cond_indep_stack"])


def is_enumerated(site: Mapping[str, Any]) -> bool:
    """Tell whether a trace's site was enumerated in parallel."""
    return site["infer"].get("_enumerate_dim") is not None


class Generating(Messenger):
    """Draw observed sites instead of scoring their data; ``pyro.deterministic`` and ``pyro.factor`` sites stay."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if is_data(msg):
            msg["is_observed"], msg["value"], msg["done"] = False, None, False


def is_point(fn: Any) -> bool:
    """Tell whether a distribution, at the bottom of those that wrap it, is a point, with or without a density."""
    return isinstance(unwrapped(fn), Delta)


def unwrapped(fn: Any) -> Any:
    """Return the distribution at the bottom of others: of ``Normal(0.0, 1.0).to_event(1)``, the normal one."""
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return fn
