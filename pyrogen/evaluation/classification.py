"""How well a conditional density predicts labels."""

from pyro import poutine
from torch import Tensor
from torch.distributions import Categorical

from pyrogen.errors import ProgramError
from pyrogen.evaluation.estimate import Estimate, mean
from pyrogen.evaluation.likelihood import Batches, over
from pyrogen.sites import Program, is_latent

__all__ = ["accuracy"]


def accuracy(model: Program, batches: Batches, site: str = "y", column: str = "y") -> Estimate:
    """Measure how often the most probable label of ``p(y | x)`` is the right one.

    Args:
        model: a program whose only random variable is the label: latent ones would be drawn from their prior.
        batches: dicts with the labels, and the model's other arguments.
        site: the label's site, with a categorical distribution.
        column: the labels' name in the batches.

    Raises:
        ProgramError: where the model has latent sites, or the site is not categorical.
    """

    def correct(batch: dict[str, Tensor]) -> Tensor:
        sites = poutine.trace(model).get_trace(**batch).nodes
        latent = [name for name, node in sites.items() if is_latent(node)]
        if latent:
            raise ProgramError(f"accuracy needs p(y | x) itself, but site {latent[0]!r} is latent")
        fn = sites[site]["fn"]
        if not isinstance(fn, Categorical):
            raise ProgramError(f"accuracy needs a categorical site {site!r}, found {type(fn).__name__}")
        return (fn.logits.argmax(-1) == batch[column]).double()

    return mean(over(batches, correct, model), "fraction")
