"""One draw of a program for data that come in batches."""

from collections.abc import Mapping
from typing import Any

from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from pyrogen.errors import ProgramError
from pyrogen.sites import Program, is_latent, is_shared, or_nothing

__all__ = ["JointDraw"]


class JointDraw:
    """Run a model with its guide's draws, batch by batch: what all data share is drawn for the first, and kept.

    Args:
        guide: ``None`` to have the model draw all latents.
        site: of the data: latents that lie in none of its plates are shared.
        owned: whether a datum may have latents of its own.
    """

    def __init__(self, model: Program, guide: Program | None, site: str, *, owned: bool = True) -> None:
        self.model, self.guide, self.site, self.owned = model, or_nothing(guide), site, owned
        self.shared = Trace()

    def __call__(self, batch: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return the site, as it is for a batch.

        Raises:
            ProgramError: where the model has no such site; where a datum has latents of its own and must not; where
                data of a second batch lie in no plate, so that nothing tells which latents are shared.
        """
        drawn = poutine.trace(poutine.replay(self.guide, trace=self.shared)).get_trace(**batch)
        given = poutine.replay(poutine.replay(self.model, trace=drawn), trace=self.shared)
        nodes = poutine.trace(given).get_trace(**batch).nodes
        if self.site not in nodes:
            raise ProgramError(f"the model has no site {self.site!r}: its sites are {', '.join(nodes)}")
        plates = {frame.name for frame in nodes[self.site]["cond_indep_stack"]}
        if self.shared.nodes and not plates:
            raise ProgramError(
                f"site {self.site!r} lies in no plate, so that latents of one datum cannot be told from those of all: "
                f'put data into pyro.plate("data", len(x)), or pass them as one batch'
            )
        for name, node in nodes.items():
            if name == self.site or node["type"] != "sample" or not is_latent(node):
                continue
            if is_shared(node, plates):
                self.shared.nodes[name] = node
            elif not self.owned:
                raise ProgramError(f"latent {name!r} is each datum's own, and no parameter that all data share")
        found: dict[str, Any] = nodes[self.site]
        return found
