"""Whether a model makes data like those that were observed: predictive checks of statistics."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrogen.errors import DataError, ProgramError, UsageError
from pyrogen.evaluation.estimate import Estimate, mean
from pyrogen.evaluation.joint_draw import JointDraw
from pyrogen.evaluation.likelihood import over
from pyrogen.sites import Program, is_data

__all__ = ["STATISTICS", "PredictiveCheck", "predictive_checks"]

Statistic = Callable[[Tensor], Tensor]


def _known(statistic: Statistic) -> Statistic:
    """Take a statistic over the values that are there."""
    return lambda values: statistic(values[~values.isnan()])


STATISTICS: Mapping[str, Statistic] = {
    "mean": _known(torch.mean),
    "sd": _known(torch.std),
    "min": _known(torch.min),
    "max": _known(torch.max),
    "zeros": _known(lambda values: (values == 0).double().mean()),
}
"""By name, what is compared of all values of the data together; ``zeros`` is the share of them that are zero."""


class PredictiveCheck(NamedTuple):
    """A statistic of data, and of replicates of them.

    Attributes:
        p_value: the share of replicates that have more of it than the data.
        observed: what the data have.
        replicated: what each replicate has, shape ``(replicates,)``.
    """

    p_value: Estimate
    observed: float
    replicated: Tensor

    @property
    def is_constant(self) -> bool:
        """Whether all have the same, so that nothing was checked."""
        return bool((self.replicated == self.observed).all())


def predictive_checks(
    model: Program,
    guide: Program | None,
    batches: Iterable[Mapping[str, Tensor]],
    statistics: Mapping[str, Statistic] = STATISTICS,
    num_replicates: int = 200,
    site: str = "x",
    column: str = "x",
) -> dict[str, PredictiveCheck]:
    r"""Compare statistics of data with those of as many data that the model makes: Bayesian p-values.

    .. math::
        z_r \sim q(z \mid x), \quad x_r \sim p(x \mid z_r), \qquad
        p = \frac{1}{R + 1} \Big(\tfrac12 + \sum_{r=1}^R \big[T(x_r) > T(x)\big] +
        \tfrac12 \big[T(x_r) = T(x)\big]\Big)

    Values near 0 and 1 are a misfit, of too little and too much of the statistic; how they are distributed where the
    model is right depends on where the latents are from:

    - **latents that all data share**, of a guide that was fitted to other data: :math:`p` is uniform where the guide is
      the posterior, up to the number of replicates. All data of a replicate have one draw of them.
    - **no guide**, or latents that it has no site for: these are drawn by the model itself. It is a check of the prior
      predictive distribution, or of a fitted model's draws, and uniform on data that it was not fitted to.
    - **latents of the data themselves**, or of a guide that was fitted to them: the data are used twice, once to infer
      and once to compare. A model that is right has :math:`p` nearer to 1/2 than a uniform one, so that the check is
      conservative: what it finds is a misfit, and what it does not find may be one.

    Args:
        guide: draws latents given the data; ``None`` to have the model draw them.
        batches: dicts of keyword arguments for the programs.
        statistics: by name, a function of all values of a data set, shape ``(data, ...)``, to a number. Values that are
            missing, NaN, are so in its replicates, too.
        num_replicates: :math:`R`.
        site: where the model observes what is compared; data that it observes elsewhere stay as they are.
        column: its name in the batches.

    Returns:
        For each statistic, the p-value with its Monte Carlo standard error, and what data and replicates have.

    Raises:
        ProgramError: where the model does not observe the site, or a statistic is not finite.
        DataError: where there is no batch, or it has no such column.
        UsageError: where there is no replicate, or a statistic is no number.

    References:
        Posterior Predictive Assessment of Model Fitness via Realized Discrepancies (Gelman et al., 1996),
        https://www3.stat.sinica.edu.tw/statistica/j6n4/j6n41/j6n41.htm

        Asymptotic Distribution of P Values in Composite Null Models (Robins et al., 2000),
        https://doi.org/10.1080/01621459.2000.10474310

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)
        >>> found = predictive_checks(model, None, [{"x": torch.linspace(-3.0, 3.0, 101)}])
        >>> found["sd"].p_value.value < 0.01 < found["mean"].p_value.value
        True
    """
    if num_replicates < 1:
        raise UsageError(f"num_replicates must be at least 1, found {num_replicates}")
    batches = list(batches)
    if not batches or any(column not in batch for batch in batches):
        raise DataError(f"there are no data to compare replicates with: expected batches with a column {column!r}")
    observed = torch.cat([batch[column] for batch in batches]).cpu().double()
    of_data = _measured(statistics, observed)
    made = [
        _measured(statistics, _replicate(model, guide, batches, site).masked_fill(observed.isnan(), torch.nan))
        for _ in range(num_replicates)
    ]
    unit = f"share of {num_replicates} replicates that have more than the data"
    found = {}
    for name, value in of_data.items():
        replicated = torch.stack([of_replicate[name] for of_replicate in made])
        if not (value.isfinite() and replicated.isfinite().all()):
            raise ProgramError(
                f"statistic {name!r} is not finite: it is {float(value):.4g} of the data, and not finite of "
                f"{int((~replicated.isfinite()).sum())} of {num_replicates} replicates"
            )
        # The data's own tie counts: among R + 1 that are alike, a place has an end, and no p-value is 0 or 1.
        above = (replicated > value).double() + 0.5 * (replicated == value)
        p_value = mean(torch.cat([above, above.new_tensor([0.5])]), unit)
        found[name] = PredictiveCheck(p_value, float(value), replicated)
    return found


def _measured(statistics: Mapping[str, Statistic], values: Tensor) -> dict[str, Tensor]:
    found = {}
    for name, statistic in statistics.items():
        value = statistic(values)
        if not isinstance(value, int | float | Tensor) or torch.as_tensor(value).dim():
            shape = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise UsageError(f"statistic {name!r} must be one number, found {shape}")
        found[name] = torch.as_tensor(value).double()
    return found


def _replicate(model: Program, guide: Program | None, batches: Iterable[Mapping[str, Tensor]], site: str) -> Tensor:
    """Draw all data once more, shape ``(data, ...)``, with one draw of what they share."""
    draw = JointDraw(Replicating(site)(model), guide, site)

    def replicated(batch: dict[str, Tensor]) -> Tensor:
        node = draw(batch)
        if not node["infer"].get("is_replicated"):
            raise ProgramError(f"the model observes no data at site {site!r} to compare replicates with")
        value: Tensor = node["value"]
        return value

    return over(batches, replicated, model, guide).double()


class Replicating(Messenger):
    """Draw what is observed at one site anew; other data stay."""

    def __init__(self, site: str) -> None:
        super().__init__()
        self.site = site

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] == self.site and is_data(msg):
            msg["is_observed"], msg["value"], msg["done"] = False, None, False
            msg["infer"] = {**msg["infer"], "is_replicated": True}
