"""How well a conditional density predicts labels."""

from pyro import poutine
from torch import Tensor

from pyrogen.errors import ProgramError
from pyrogen.evaluation.estimate import Estimate, mean
from pyrogen.evaluation.likelihood import Batches, over
from pyrogen.sites import Program

__all__ = ["accuracy"]


def accuracy(model: Program, batches: Batches, site: str = "y") -> Estimate:
    """Measure how often the most probable label of ``p(y | x)`` is the right one.

    Args:
        batches: dicts with a column named like the site, and the model's other arguments.
        site: the label's site, with a categorical distribution.

    Raises:
        ProgramError: where the site is not categorical.
    """

    def correct(batch: dict[str, Tensor]) -> Tensor:
        covariates = {name: column for name, column in batch.items() if name != site}
        fn = poutine.trace(model).get_trace(**covariates).nodes[site]["fn"]
        if not hasattr(fn, "logits"):
            raise ProgramError(f"accuracy needs a categorical site {site!r}, found {type(fn).__name__}")
        return (fn.logits.argmax(-1) == batch[site]).double()

    return mean(over(batches, correct, model), "fraction")
