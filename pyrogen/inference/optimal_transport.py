"""Distances that move one sample onto the other."""

from collections.abc import Sequence

from torch import Tensor

from pyrogen.discrepancy import energy_distance, sliced_wasserstein2
from pyrogen.errors import UsageError
from pyrogen.inference.distance import Distance, Features

__all__ = ["EnergyDistance", "Sinkhorn", "SlicedWasserstein"]


class EnergyDistance(Distance):
    r"""The energy distance between data and draws, each datum a point. There is no critic.

    .. math:: 2 \, \mathbb{E} \lVert x - y \rVert^\beta - \mathbb{E} \lVert x - x' \rVert^\beta
        - \mathbb{E} \lVert y - y' \rVert^\beta, \quad x, x' \sim p^*, \; y, y' \sim p_\theta

    (Pyro's loss of this name takes a whole minibatch for one point.)

    Args:
        beta: the power, between 0 and 2, without these.
        unbiased: leave pairs of a sample with itself out.
        features: what is compared instead of the values themselves: a function of the sites' values and covariates.
        covariates: names of the arguments that data are conditioned on; found by themselves if not given.

    References:
        Energy statistics: A class of statistics based on distances (Székely and Rizzo, 2013),
        https://doi.org/10.1016/j.jspi.2013.03.018
    """

    def __init__(
        self,
        beta: float = 1.0,
        unbiased: bool = True,
        features: Features | None = None,
        covariates: Sequence[str] | None = None,
    ) -> None:
        super().__init__(features, covariates)
        if not 0 < beta < 2:
            raise ValueError(f"beta must be between 0 and 2, found {beta}")
        self.beta, self.unbiased = beta, unbiased

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        return energy_distance(x, y, self.beta, self.unbiased)


class SlicedWasserstein(Distance):
    r"""The squared 2-Wasserstein distance of one-dimensional projections, averaged over directions.

    .. math:: \mathrm{SW}_2^2 = \mathbb{E}_{\theta \sim U(S^{d-1})} W_2^2(\theta^\top x, \theta^\top y)
        = \mathbb{E}_\theta \frac{1}{n} \sum_i \left((\theta^\top x)_{(i)} - (\theta^\top y)_{(i)}\right)^2

    In :math:`d` dimensions, of equal covariances, it is :math:`1/d` of the squared distance of the means.

    Args:
        num_projections: directions, drawn anew at each call.
        features: what is compared instead of the values themselves: a function of the sites' values and covariates.
        covariates: names of the arguments that data are conditioned on; found by themselves if not given.

    References:
        Sliced and Radon Wasserstein Barycenters of Measures (Bonneel et al., 2015),
        https://doi.org/10.1007/s10851-014-0506-3
    """

    def __init__(
        self, num_projections: int = 128, features: Features | None = None, covariates: Sequence[str] | None = None
    ) -> None:
        super().__init__(features, covariates)
        if num_projections < 1:
            raise ValueError(f"num_projections must be at least 1, found {num_projections}")
        self.num_projections = num_projections

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        return sliced_wasserstein2(x, y, self.num_projections)


class Sinkhorn(Distance):
    r"""The debiased, entropy-regularised optimal transport between data and draws.

    .. math:: S_\epsilon(a, b) = \mathrm{OT}_\epsilon(a, b) - \tfrac{1}{2} \mathrm{OT}_\epsilon(a, a)
        - \tfrac{1}{2} \mathrm{OT}_\epsilon(b, b), \quad c(x, y) = \lVert x - y \rVert^2,
        \quad \epsilon = 2 \, \mathrm{blur}^2

    Between squared 2-Wasserstein distance (no blur) and the squared distance of the means (all blur). It is zero
    between equal samples, which without the last two terms it would not be.

    Args:
        blur: the length below which data are not told apart, in their units.
        diameter: an upper bound of the distances between data, in their units; measured if not given, which makes the
            host wait at each step, and cannot be compiled.
        scaling: between 0 and 1; nearer to 1 for more, smaller steps of the blur, and a better solution.
        features: what is compared instead of the values themselves: a function of the sites' values and covariates.
        covariates: names of the arguments that data are conditioned on; found by themselves if not given.

    Raises:
        UsageError: where geomloss is not installed.

    References:
        Learning Generative Models with Sinkhorn Divergences (Genevay et al., 2018), https://arxiv.org/abs/1706.00292

        Interpolating between Optimal Transport and MMD using Sinkhorn Divergences (Feydy et al., 2019),
        https://arxiv.org/abs/1810.08278
    """

    def __init__(
        self,
        blur: float = 0.05,
        diameter: float | None = None,
        scaling: float = 0.5,
        features: Features | None = None,
        covariates: Sequence[str] | None = None,
    ) -> None:
        super().__init__(features, covariates)
        try:
            from geomloss import SamplesLoss
        except ImportError as error:
            raise UsageError("Sinkhorn needs geomloss: pip install 'pyrogen-ppl[metrics]'") from error
        if not blur > 0 or not 0 < scaling < 1 or (diameter is not None and not diameter > 0):
            raise ValueError(
                f"blur and diameter must be positive, and scaling between 0 and 1, found blur={blur}, "
                f"diameter={diameter}, scaling={scaling}"
            )
        self.divergence = SamplesLoss(
            "sinkhorn", p=2, blur=blur, diameter=diameter, scaling=scaling, backend="tensorized"
        )

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        return 2 * self.divergence(x, y).reshape(())  # geomloss halves the cost
