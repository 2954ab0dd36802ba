"""Likelihoods of topic models: of the rest of a document, of words in their order, of words and their topics."""

from collections.abc import Iterable, Iterator, Mapping
from math import log
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrogen.counts import Entries, as_csr, entries, make_csr, offsets_of
from pyrogen.distributions import BagOfWords
from pyrogen.errors import DataError, ProgramError
from pyrogen.evaluation.estimate import Estimate
from pyrogen.evaluation.likelihood import of_each
from pyrogen.pairing import check_pairing
from pyrogen.sites import Program, is_latent, is_point, or_nothing, sample_sites, unwrapped

__all__ = ["document_completion", "halves", "left_to_right", "log_joint", "perplexity"]


def document_completion(
    model: Program,
    guide: Program | None,
    batches: Iterable[Mapping[str, Tensor]],
    num_particles: int = 20,
    seed: int = 0,
) -> Estimate:
    r"""Estimate the log-probability of a word in one half of a document, given the other half.

    .. math::
        \frac{\sum_d \sum_v x'_{dv} \log \mathbb{E}_{q(\theta, \varphi \mid x_d)}[p(v \mid \theta, \varphi)]}
        {\sum_d \sum_v x'_{dv}}

    The guide sees the one half, :math:`x`; the model scores the other, :math:`x'`. Sites that are Dirichlet or points
    are taken at their means, where a mixture's probability is linear in them; others are drawn.

    Args:
        model: with one site of data, whose distribution is a :class:`~pyrogen.distributions.BagOfWords`.
        guide: draws the model's latents for documents ``x``.
        batches: dicts of keyword arguments, ``x`` of counts among them.
        num_particles: draws, where sites are drawn.
        seed: of the cut in halves, the same for all models.

    Returns:
        In nats per word, higher is better; the standard error is over documents, whose totals are its values.

    Raises:
        ProgramError: where the model has no such site.

    References:
        Evaluation Methods for Topic Models (Wallach et al., 2009), https://doi.org/10.1145/1553374.1553515
    """
    generator = torch.Generator().manual_seed(seed)

    def scored(batch: dict[str, Tensor]) -> Tensor:
        seen, unseen = halves(batch["x"], generator)
        found = entries(unseen)
        score, counts = _predictive(model, guide, batch | {"x": seen}, found, num_particles), found.values
        totals = counts.new_zeros(len(unseen), 2, dtype=torch.float64)
        return totals.index_add(0, found.rows, torch.stack([counts * score, counts], 1).double()).cpu()

    score, length = torch.cat(of_each(batches, scored, model, guide)).T
    if length.sum() == 0:
        raise DataError("no document has two words or more: there is no half to complete")
    value = float(score.sum() / length.sum())
    error = (score - value * length).square().sum().sqrt() / length.sum()
    return Estimate(value, float(error) if len(score) > 1 else None, "nats per word", values=score)


def perplexity(completion: Estimate) -> Estimate:
    r"""Return :math:`\exp(-\mathcal{L})` of a log-probability per word: among how many words a choice is left."""
    value = float(np.exp(-completion.value))
    return Estimate(value, None if completion.stderr is None else value * completion.stderr, "words")


def halves(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cut the words of each document at random in two halves; of an odd number, the first is the longer.

    Example:
        >>> x = torch.tensor([[3.0, 1.0], [0.0, 5.0]])
        >>> [half.to_dense().sum(1).tolist() for half in halves(x, torch.Generator().manual_seed(0))]
        [[2.0, 3.0], [2.0, 2.0]]
    """
    x = as_csr(x)
    _, rows, columns, counts = entries(x)
    times = counts.long()
    rows, columns = rows.repeat_interleave(times), columns.repeat_interleave(times)
    # A number for each word, so that the cut of a document is the same in a batch of any size.
    shuffled = torch.rand(len(rows), generator=generator, dtype=torch.float64).argsort(stable=True).to(rows.device)
    order = shuffled[rows[shuffled].argsort(stable=True)]
    rows, columns = rows[order], columns[order]
    begins = offsets_of(torch.bincount(rows, minlength=len(x)))
    is_second = (torch.arange(len(rows), device=rows.device) - begins[rows]) % 2 == 1
    first, second = (_counted(rows[part], columns[part], x) for part in (~is_second, is_second))
    return first, second


def _counted(rows: Tensor, columns: Tensor, like: Tensor) -> Tensor:
    keys, counts = (rows * like.shape[1] + columns).unique(return_counts=True)
    offsets = offsets_of(torch.bincount(keys // like.shape[1], minlength=len(like)))
    return make_csr(offsets, keys % like.shape[1], counts.to(like.dtype), (like.shape[0], like.shape[1]))


class Means(Messenger):
    """Puts means in the place of draws at sites that are Dirichlet or points; remembers whether others were drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.has_drawn = False

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not is_latent(msg):
            return
        if is_point(msg["fn"]) or isinstance(unwrapped(msg["fn"]), dist.Dirichlet):
            msg["value"], msg["done"] = msg["fn"].mean, True
        else:
            self.has_drawn = True


def _predictive(
    model: Program, guide: Program | None, seen: Mapping[str, Tensor], unseen: Entries, count: int
) -> Tensor:
    """Return the log-probability of each stored word of a half, given the other."""
    found = []
    for _ in range(count):
        with Means() as means:
            drawn = poutine.trace(or_nothing(guide)).get_trace(**seen)
        trace = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(**seen)
        of_words = [site["fn"] for site in sample_sites(trace) if isinstance(site["fn"], BagOfWords)]
        if len(of_words) != 1:
            raise ProgramError(
                f"a document is completed at a site whose distribution is a BagOfWords or a TopicMixture, and the "
                f"model has {len(of_words)} of these"
            )
        check_pairing(trace, drawn)
        found.append(of_words[0].stored_words(unseen))
        if not means.has_drawn:
            break
    return torch.stack(found).logsumexp(0) - log(len(found))


def log_joint(of_documents: Tensor, of_words: Tensor, alpha: Tensor, eta: Tensor) -> Tensor:
    r"""Return :math:`\log p(w, z)` of words and their topics, with weights and topics summed out.

    .. math::
        \sum_d \log \frac{B(\alpha + n_d)}{B(\alpha)} + \sum_k \log \frac{B(\eta + n_k)}{B(\eta)}, \quad
        B(a) = \frac{\prod_i \Gamma(a_i)}{\Gamma(\sum_i a_i)}

    It is the trace of a collapsed Gibbs sampler, and *not* :math:`\log p(w)`, which it is below: that is summed over
    all assignments of topics.

    Args:
        of_documents: how many words of each document each topic has, :math:`n_d`, shape ``(documents, topics)``.
        of_words: how often each topic has each word, :math:`n_k`, shape ``(topics, words)``.
        alpha: :math:`\alpha`, shape ``(topics,)``.
        eta: :math:`\eta`, shape ``(words,)``.

    Returns:
        In nats, shape ``()``, float64.

    References:
        Finding Scientific Topics (Griffiths and Steyvers, 2004), https://doi.org/10.1073/pnas.0307752101
    """

    def log_beta(a: Tensor) -> Tensor:
        return a.lgamma().sum(-1) - a.sum(-1).lgamma()

    total = torch.zeros((), dtype=torch.float64)
    for counts, prior in ((of_documents.double(), alpha.double()), (of_words.double(), eta.double())):
        total = total + (log_beta(prior + counts) - log_beta(prior)).sum()
    return total


@torch.no_grad()
def left_to_right(x: Tensor, topics: Tensor, alpha: Tensor, num_particles: int = 20) -> Tensor:
    r"""Estimate the log-probability of documents, word by word, from particles of the topics of the words before.

    .. math:: \log p(w \mid \varphi, \alpha) \approx \log \frac{1}{P} \sum_p \prod_n \sum_k \varphi_{k w_n}
        \frac{c^{(p)}_{k, <n} + \alpha_k}{n - 1 + \sum_j \alpha_j}

    Before each word, the topics of all words before it are drawn anew, one after the other, given the others. It costs
    the square of a document's length, and is for short ones. Its exponential is unbiased, for any number of particles:
    they are averaged over whole documents, and not word by word as in the first reference, which is biased.

    Args:
        x: counts, ``(documents, words)``, CSR or dense.
        topics: :math:`\varphi`, shape ``(topics, words)``.
        alpha: :math:`\alpha`, shape ``(topics,)``.
        num_particles: :math:`P`.

    Returns:
        In nats, shape ``(documents,)``.

    References:
        Evaluation Methods for Topic Models (Wallach et al., 2009), https://doi.org/10.1145/1553374.1553515
    """
    return torch.stack([_left_to_right(words, topics, alpha, num_particles) for words in _in_order(x)])


def _in_order(x: Tensor) -> Iterator[Tensor]:
    """Go through documents, as lists of words; their order is drawn, since nothing is known of it."""
    offsets, _, columns, counts = entries(as_csr(x))
    for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        words = columns[begin:end].repeat_interleave(counts[begin:end].long())
        yield words[torch.randperm(len(words), device="cpu").to(words.device)]


def _left_to_right(words: Tensor, topics: Tensor, alpha: Tensor, count: int) -> Tensor:
    chosen = topics[:, words].T  # of each word, what each topic gives it
    counted = alpha.expand(count, -1).clone()
    each = torch.arange(count, device=words.device)
    held: list[Tensor] = []
    total = topics.new_zeros(count)
    if bool((chosen.sum(-1) == 0).any()):
        return total.new_tensor(float("-inf"))  # a word that no topic has
    for n in range(len(words)):
        for m in range(n):
            counted[each, held[m]] -= 1
            held[m] = (counted * chosen[m]).multinomial(1)[:, 0]
            counted[each, held[m]] += 1
        joint = counted * chosen[n]
        total = total + (joint.sum(-1) / counted.sum(-1)).log()
        held.append(joint.multinomial(1)[:, 0])
        counted[each, held[n]] += 1
    return total.logsumexp(0) - log(count)
