"""Documents as mixtures of topics: latent Dirichlet allocation and its relatives."""

from math import log

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import batch_norm, softplus

from pyrogen.distributions import BagOfWords, TopicMixture
from pyrogen.models.plates import scaled_plate

__all__ = ["LDA", "CorrelatedTopicModel", "ProdLDA", "TopicModel"]


UNIT = log(torch.e - 1)
"""Where softplus is one."""


class TopicModel(PyroModule):
    r"""The program that topic models have in common.

    .. math::
        \varphi_k \sim p(\varphi), \quad \theta_d \sim p(\theta), \quad x_d \sim p(x \mid \theta_d, \varphi)

    To make another, override :meth:`topics`, :meth:`weights` or :meth:`words`. Plates: ``topic``, and ``document``,
    which scales a batch up to all documents. ``x`` are counts ``(documents, words)``, CSR or dense.

    Args:
        num_words: :math:`V`.
        num_topics: :math:`K`.
        num_data: how many documents a batch stands for.
        length: words in a document that is drawn.
    """

    dims = {"phi": ("word",), "theta": ("topic",), "x": ("word",)}  # noqa: RUF012
    """What the dimensions of sites' events are called."""

    def __init__(self, num_words: int, num_topics: int, num_data: int, length: int = 100) -> None:
        super().__init__()
        if min(num_words, num_topics, num_data, length) < 1:
            found = f"{num_words}, {num_topics}, {num_data}, {length}"
            raise ValueError(f"words, topics, data and length must be at least 1, found {found}")
        self.num_words, self.num_topics = num_words, num_topics
        self.num_data, self.length = num_data, length

    def topics(self) -> Tensor:
        """Draw or compute the topics, shape ``(topics, words)``."""
        raise NotImplementedError  # a PyroModule cannot be an ABC

    def weights(self) -> Tensor:
        """Draw the weights of topics within the plate of documents, shape ``(documents, topics)``."""
        raise NotImplementedError

    def words(self, weights: Tensor, topics: Tensor) -> TorchDistribution:
        """Return the distribution of words."""
        return TopicMixture(weights, topics, self.length)

    def forward(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        """Score documents ``x``; without them, generate ``size``."""
        topics = self.topics()
        with scaled_plate("document", x, size, self.num_data):
            return pyro.sample("x", self.words(self.weights(), topics), obs=x)


class LDA(TopicModel):
    r"""Latent Dirichlet allocation, each word's topic summed out.

    .. math::
        \varphi_k \sim \mathrm{Dirichlet}(\eta), \quad \theta_d \sim \mathrm{Dirichlet}(\alpha), \quad
        p(x_d \mid \theta_d, \varphi) = \prod_v \Big(\sum_k \theta_{dk} \varphi_{kv}\Big)^{x_{dv}}

    Sites: ``phi`` of event shape ``(words,)`` in plate ``topic``; ``theta`` of event shape ``(topics,)`` and ``x`` of
    event shape ``(words,)`` in plate ``document``.

    Args:
        num_words: :math:`V`.
        num_topics: :math:`K`.
        num_data: how many documents a batch stands for.
        alpha: :math:`\alpha`, one for all topics.
        eta: :math:`\eta`, one for all words.
        length: words in a document that is drawn.

    References:
        Latent Dirichlet Allocation (Blei et al., 2003), https://www.jmlr.org/papers/v3/blei03a.html

    Example:
        >>> LDA(num_words=7, num_topics=3, num_data=100)(size=2).sum(1)
        tensor([100., 100.])
    """

    alpha: Tensor
    eta: Tensor

    def __init__(
        self,
        num_words: int,
        num_topics: int,
        num_data: int,
        alpha: float = 0.1,
        eta: float = 0.1,
        length: int = 100,
    ) -> None:
        super().__init__(num_words, num_topics, num_data, length)
        self.register_buffer("alpha", torch.full((num_topics,), alpha))
        self.register_buffer("eta", torch.full((num_words,), eta))

    def topics(self) -> Tensor:
        with pyro.plate("topic", self.num_topics):
            return pyro.sample("phi", dist.Dirichlet(self.eta))

    def weights(self) -> Tensor:
        return pyro.sample("theta", dist.Dirichlet(self.alpha))


class CorrelatedTopicModel(LDA):
    r"""Topics that come together: their weights are logistic-normal, with a full covariance that is learned.

    .. math:: z_d \sim \mathcal{N}(\mu, L L^\top), \quad \theta_d = \operatorname{softmax}(z_d)

    Sites: as of :class:`LDA`, with ``z`` of event shape ``(topics,)`` in the place of ``theta``, which is
    deterministic. :math:`\mu` and :math:`L` are parameters.

    Args:
        num_words: :math:`V`.
        num_topics: :math:`K`.
        num_data: how many documents a batch stands for.
        eta: :math:`\eta`, one for all words.
        length: words in a document that is drawn.

    References:
        A Correlated Topic Model of Science (Blei and Lafferty, 2007), https://doi.org/10.1214/07-AOAS114

    Example:
        >>> CorrelatedTopicModel(num_words=7, num_topics=3, num_data=100).correlations().shape
        torch.Size([3, 3])
    """

    dims = {**LDA.dims, "z": ("topic",)}  # noqa: RUF012

    def __init__(self, num_words: int, num_topics: int, num_data: int, eta: float = 0.1, length: int = 100) -> None:
        super().__init__(num_words, num_topics, num_data, eta=eta, length=length)
        del self.alpha
        self.loc = nn.Parameter(torch.zeros(num_topics))
        self.raw_tril = nn.Parameter(torch.zeros(num_topics, num_topics))

    def scale_tril(self) -> Tensor:
        """Return :math:`L`, shape ``(topics, topics)``."""
        return self.raw_tril.tril(-1) + torch.diag_embed(softplus(self.raw_tril.diagonal() + UNIT))

    def correlations(self) -> Tensor:
        """Return the correlations of the topics' logits, shape ``(topics, topics)``."""
        covariance = self.scale_tril() @ self.scale_tril().T
        scale = covariance.diagonal().sqrt()
        return covariance / (scale[:, None] * scale)

    def weights(self) -> Tensor:
        z = pyro.sample("z", dist.MultivariateNormal(self.loc, scale_tril=self.scale_tril()))
        return pyro.deterministic("theta", z.softmax(-1), event_dim=1)


class ProdLDA(TopicModel):
    r"""Topics as factors of a product of experts.

    .. math::
        z_d \sim \mathcal{N}(0, \sigma^2 I), \quad \theta_d = \operatorname{softmax}(z_d), \quad
        x_d \sim \operatorname{softmax}\big(\mathrm{BN}(\theta_d \beta)\big), \quad
        \sigma^2 = \tfrac{1}{\alpha} \big(1 - \tfrac{1}{K}\big)

    The prior is Laplace's approximation, in the softmax basis, to :math:`\mathrm{Dirichlet}(\alpha)`. Topics
    :math:`\beta` are parameters, without a constraint; ``phi``, deterministic, are their softmax. BN is batch
    normalisation without scale and shift, and topics are dropped out of documents in training.

    Args:
        num_words: :math:`V`.
        num_topics: :math:`K`.
        num_data: how many documents a batch stands for.
        alpha: :math:`\alpha`.
        dropout: the share of topics that are dropped in training.
        length: words in a document that is drawn.

    References:
        Autoencoding Variational Inference for Topic Models (Srivastava and Sutton, 2017),
        https://arxiv.org/abs/1703.01488

    Example:
        >>> ProdLDA(num_words=7, num_topics=3, num_data=100).eval()(size=2).shape
        torch.Size([2, 7])
    """

    dims = {**TopicModel.dims, "z": ("topic",)}  # noqa: RUF012

    def __init__(
        self,
        num_words: int,
        num_topics: int,
        num_data: int,
        alpha: float = 1.0,
        dropout: float = 0.2,
        length: int = 100,
    ) -> None:
        super().__init__(num_words, num_topics, num_data, length)
        self.beta = nn.Parameter(torch.empty(num_topics, num_words))
        nn.init.xavier_uniform_(self.beta)
        self.norm = nn.BatchNorm1d(num_words, affine=False)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("loc", torch.zeros(num_topics))
        self.scale = ((1 - 1 / num_topics) / alpha) ** 0.5

    def topics(self) -> Tensor:
        with pyro.plate("topic", self.num_topics):
            pyro.deterministic("phi", self.beta.softmax(-1), event_dim=1)
        return self.beta

    def weights(self) -> Tensor:
        z = pyro.sample("z", dist.Normal(self.loc, self.scale).to_event(1))
        return pyro.deterministic("theta", z.softmax(-1), event_dim=1)

    def words(self, weights: Tensor, topics: Tensor) -> TorchDistribution:
        mixed = self.dropout(weights) @ topics
        rows = mixed.flatten(0, -2)
        has_variance = len(rows) > 1  # one document has none
        normed = self.norm(rows) if has_variance else batch_norm(rows, self.norm.running_mean, self.norm.running_var)
        return BagOfWords(normed.reshape(mixed.shape).log_softmax(-1), self.length)
