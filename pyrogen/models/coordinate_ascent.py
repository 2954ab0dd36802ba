"""The best weights of topics for each document, given topics, by coordinate ascent."""

from collections.abc import Callable

import torch
from torch import Tensor

from pyrogen.counts import entries, is_csr, make_csr, weighted_sums
from pyrogen.distributions import log_geometric_mean
from pyrogen.errors import ProgramError

__all__ = ["local_optimum"]


@torch.no_grad()
def local_optimum(
    x: Tensor,
    log_topics: Tensor,
    alpha: Tensor,
    log_weights: Callable[[Tensor], Tensor] = log_geometric_mean,
    max_steps: int = 100,
    tolerance: float = 1e-3,
) -> Tensor:
    r"""Find the concentrations at which they are what the words say, document by document.

    .. math::
        \gamma_{dk} = \alpha_k + \sum_v x_{dv} \frac{\tilde\theta_{dk} \tilde\varphi_{kv}}
        {\sum_j \tilde\theta_{dj} \tilde\varphi_{jv}}, \quad \tilde\theta_d = \exp f(\gamma_d)

    With geometric means :math:`\tilde\theta`, :math:`\tilde\varphi`, :math:`\mathrm{Dirichlet}(\gamma_d)` is the best
    factor of a mean-field posterior; with :math:`\tilde\theta_d = \gamma_d / \sum_k \gamma_{dk}` and topics as they
    are, :math:`\tilde\theta_d` is the mode of the posterior in the softmax basis, by expectation maximisation.

    Args:
        x: counts, ``(documents, words)``, CSR or dense.
        log_topics: :math:`\log \tilde\varphi`, shape ``(topics, words)``.
        alpha: :math:`\alpha`, shape ``(topics,)``.
        log_weights: :math:`f`.
        max_steps: steps at most. On an accelerator all are taken: to look at the change would make the host wait.
        tolerance: stop where the mean absolute change of every document's :math:`\gamma` is below this.

    Returns:
        :math:`\gamma`, shape ``(documents, topics)``, without a gradient.

    References:
        Latent Dirichlet Allocation (Blei et al., 2003), https://www.jmlr.org/papers/v3/blei03a.html
    """
    if x.shape[-1] != log_topics.shape[-1]:
        raise ProgramError(f"documents of {x.shape[-1]} words for topics of {log_topics.shape[-1]} words")
    x, alpha = x.to(log_topics.dtype), alpha.to(log_topics.dtype)
    # A factor of a word, or of a document, cancels: it is chosen so that nothing underflows.
    topics = (log_topics - log_topics.amax(0)).exp()
    explained = _sparse(x, topics) if is_csr(x) else lambda weights: (x / (weights @ topics)) @ topics.T
    gamma = alpha + (x @ topics.new_ones(x.shape[1]))[:, None] / len(alpha)
    for _ in range(max_steps):
        scores = log_weights(gamma)
        weights = (scores - scores.amax(-1, keepdim=True)).exp()
        last, gamma = gamma, alpha + weights * explained(weights)
        if gamma.device.type == "cpu" and (gamma - last).abs().mean(-1).max() < tolerance:
            break
    return gamma


def _sparse(x: Tensor, topics: Tensor) -> Callable[[Tensor], Tensor]:
    r"""Return the function of weights that adds up, over a document's words, what each topic has of their explanation.

    .. math:: \sum_v x_{dv} \frac{\tilde\varphi_{kv}}{\sum_j \tilde\theta_{dj} \tilde\varphi_{jv}}
    """
    offsets, _, columns, counts = entries(x)
    by_word = topics.T.contiguous()
    zeros = make_csr(offsets, columns, torch.zeros_like(counts), (x.shape[0], x.shape[1]))

    def explained(weights: Tensor) -> Tensor:
        total = torch.sparse.sampled_addmm(zeros, weights, topics, beta=0.0).values()
        return weighted_sums(by_word, columns, counts / total, offsets)

    return explained
