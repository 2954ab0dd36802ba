"""Programs of data whose elements are drawn one after the other."""

from dataclasses import replace
from typing import Any

import pyro
from pyro.distributions import constraints
from pyro.nn import PyroModule
from torch import Tensor

from pyrogen.distributions import Autoregressive, Choice
from pyrogen.errors import ProgramError
from pyrogen.models.labels import labels_or_random
from pyrogen.models.likelihood import Likelihood, likelihood_for
from pyrogen.nn.causal import Causal
from pyrogen.nn.recurrent import Memory
from pyrogen.nn.values import ScaledValues
from pyrogen.spec import DataSpec, one_hot

__all__ = [
    "AutoregressiveModel",
    "ConditionalAutoregressiveModel",
    "likelihood_of_element",
    "model_of",
    "value_encoder",
]


def likelihood_of_element(spec: DataSpec, name: str | None = None) -> Likelihood:
    """Make the likelihood of one element of the data, by name, or by the data's kind.

    Raises:
        UsageError: where there is none of that name, or it does not fit the data.

    Example:
        >>> likelihood_of_element(DataSpec((1, 8, 8), "levels", levels=17), "categorical").num_features
        17
    """
    return likelihood_for(replace(spec, shape=()), name)


class AutoregressiveModel(PyroModule):
    r"""Data whose elements depend on those before them.

    .. math:: p(x) = \prod_i p(x_i \mid f_\theta(x_{<i}))

    Site: ``x`` of event shape ``spec.shape``, in plate ``data``.

    Args:
        network: :math:`f_\theta`, which maps data to the features of each element.
        likelihood: what they mean, of one element: see :func:`likelihood_of_element`.
        spec: the data.

    Attributes:
        choice: how draws choose elements; temperature 1 and all of them unless it is set.
        covariates: names of the arguments that draws are conditioned on.
    """

    covariates: tuple[str, ...] = ()

    def __init__(self, network: Causal, likelihood: Likelihood, spec: DataSpec) -> None:
        super().__init__()
        self.network, self.likelihood, self.spec = network, likelihood, spec
        self.choice = Choice()

    def forward(self, x: Tensor | None = None, size: int = 1, length: int | None = None) -> Tensor:
        """Score the data ``x`` of shape ``(batch, *spec.shape)``; without data, generate ``size`` of them.

        A network that takes sequences of any length (:attr:`pyrogen.nn.Causal.has_any_length`) scores such, too, and
        generates them of a ``length`` that is asked for.
        """
        size = size if x is None else len(x)
        with pyro.plate("data", size):
            return pyro.sample("x", self.distribution(size, length=self._length(x, length)), obs=x)

    def distribution(
        self, size: int, context: Tensor | None = None, memory: Memory | None = None, length: int | None = None
    ) -> Autoregressive:
        """Return the distribution of ``size`` data.

        Args:
            size: how many.
            context: what they depend on, shape ``(size, ...)``.
            memory: what was read before them.
            length: of sequences, where it is not that of ``spec``.

        Raises:
            ProgramError: where a length is given, and the network takes none but that of ``spec``.
        """
        if length is not None and not (self.network.has_any_length and len(self.spec.shape) == 1):
            raise ProgramError(
                f"{type(self.network).__name__} models data of shape {self.spec.shape}, and no other length: leave "
                f"`length` out"
            )
        return Autoregressive(
            self.network,
            self.likelihood.distribution,
            self.spec.shape if length is None else (length,),
            context,
            (size,),
            self._support(),
            self.choice,
            memory,
        )

    def _length(self, x: Tensor | None, length: int | None) -> int | None:
        """Return the length of the sequences that are scored, or else what is asked for."""
        takes_any = self.network.has_any_length and len(self.spec.shape) == 1
        return x.shape[-1] if x is not None and takes_any else length

    def _support(self) -> Any:
        if self.spec.levels is None or self.spec.kind == "dequantized":
            return constraints.real
        return constraints.integer_interval(0, self.spec.levels - 1)


class ConditionalAutoregressiveModel(AutoregressiveModel):
    r"""Data whose elements depend on those before them, and on the datum's label.

    .. math:: p(x \mid y) = \prod_i p(x_i \mid f_\theta(x_{<i}, y))

    Sites as in :class:`AutoregressiveModel`; ``y`` is a covariate, which no site observes. The network's context is the
    label as a one-hot vector.
    """

    covariates = ("y",)

    def forward(
        self, x: Tensor | None = None, size: int = 1, length: int | None = None, y: Tensor | None = None
    ) -> Tensor:
        """Score data given labels ``y`` of shape ``(batch,)``; without data, generate one for each label, or random."""
        if y is None and x is not None:
            raise ProgramError("data are modelled given their labels: pass y, one for each datum")
        y = labels_or_random(y, size, self.spec, next(self.network.parameters()).device)
        with pyro.plate("data", len(y)):
            found = self.distribution(len(y), one_hot(y, self.spec), length=self._length(x, length))
            return pyro.sample("x", found, obs=x)


def model_of(network: Causal, likelihood: Likelihood, spec: DataSpec, conditional: bool) -> AutoregressiveModel:
    """Make the model of a network, of data given their labels or not."""
    return (ConditionalAutoregressiveModel if conditional else AutoregressiveModel)(network, likelihood, spec)


def value_encoder(spec: DataSpec) -> ScaledValues:
    """Return what networks first make of data that are numbers, and not mere names."""
    return ScaledValues(spec.levels if spec.kind in ("binary", "levels") else None)
