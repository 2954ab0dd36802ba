"""Topic models: evidence by enumeration, exact posteriors, coordinate ascent, known topics, other packages' figures."""

import itertools
import math
import warnings
from functools import cache, partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from gibbs import Gibbs, log_joint
from known_answers import LDA_TRUTH as T
from pyro import poutine
from torch import Tensor, nn

import pyrogen.inference.collapsed_vb
import pyrogen.inference.natural_gradient
import pyrogen.models.topic_model
from pyrogen import evaluation
from pyrogen.counts import as_csr, entries, take
from pyrogen.data import Batches, from_counts, reuters
from pyrogen.distributions import BagOfWords, TopicMixture, log_geometric_mean, log_mean
from pyrogen.errors import ProgramError, UsageError
from pyrogen.evaluation.topics import halves
from pyrogen.inference import ELBO, Annealing, CollapsedVB, NaturalGradient
from pyrogen.inference import train as train_as_set
from pyrogen.inference.entries import collapsed_vb
from pyrogen.models import LDA, CorrelatedTopicModel, DirichletEncoder, MeanField, NormalEncoder, PointTopics, ProdLDA
from pyrogen.models.coordinate_ascent import local_optimum
from pyrogen.models.topic_entries import lda, prodlda
from pyrogen.nn import BagOfWordsMLP
from pyrogen.programs import log_weights
from pyrogen.spec import DataSpec

# There are no graphs of sparse counts, nor of coordinate ascent that looks at how much it still changes.
train = partial(train_as_set, compile=False)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=1.0)


def small_lda() -> LDA:
    return LDA(num_words=3, num_topics=2, num_data=3, alpha=T.alpha, eta=T.eta)


class Prior:
    """A guide that draws LDA's latents from their prior: importance weights are then likelihoods."""

    def __init__(self, model: LDA) -> None:
        self.model = model

    def __call__(self, x: Tensor) -> None:
        with pyro.plate("topic", self.model.num_topics):
            pyro.sample("phi", dist.Dirichlet(self.model.eta))
        with pyro.plate("document", len(x)):
            pyro.sample("theta", dist.Dirichlet(self.model.alpha))


def estimated(log_weights: Tensor) -> tuple[float, float]:
    """Return the logarithm of the mean of weights, and its standard error."""
    weights = (log_weights - log_weights.max()).exp()
    value = float(log_weights.max() + weights.mean().log())
    return value, float(weights.std() / weights.mean() / len(weights) ** 0.5)


def evidence_of(model: LDA, x: Tensor, num_particles: int = 200_000) -> tuple[float, float]:
    weights = torch.cat([log_weights(model, Prior(model), x, num_particles=20_000).sum(1) for _ in range(10)])
    assert len(weights) == num_particles
    return estimated(weights)


# The program


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("sparse", [False, True])
def test_evidence_is_that_of_enumeration(sparse):
    value, error = evidence_of(small_lda(), as_csr(T.counts) if sparse else T.counts)
    assert error < 0.02
    assert abs(value - T.log_evidence) < 4.5 * error


@pytest.mark.usefixtures("double")
def test_a_dirichlet_that_is_off_by_one_has_another_evidence():
    model = small_lda()
    model.alpha += 1
    value, error = evidence_of(model, T.counts)
    assert abs(value - T.log_evidence) > 4.5 * error


@pytest.mark.usefixtures("double")
def test_enumeration_says_so_itself_and_the_joint_is_not_the_evidence():
    joints = []
    for z in itertools.product(range(2), repeat=12):
        of_document, of_word = torch.zeros(3, 2), torch.zeros(2, 3)
        for (d, w), k in zip(((d, w) for d, words in enumerate(T.documents) for w in words), z, strict=True):
            of_document[d, k] += 1
            of_word[k, w] += 1
        joints.append((of_document, of_word))
    alpha, eta = torch.full((2,), T.alpha), torch.full((3,), T.eta)
    values = torch.stack([evaluation.log_joint(*counts, alpha, eta) for counts in joints])
    assert float(values.logsumexp(0)) == pytest.approx(T.log_evidence, abs=1e-9)
    assert float(values.max()) < T.log_evidence - 2  # the best assignment's joint, reported as log p(w), is far off


@pytest.mark.usefixtures("double")
def test_posterior_of_weights_given_topics():
    model = poutine.condition(small_lda(), data={"phi": T.phi})

    def guide(x):
        with pyro.plate("document", 3):
            pyro.sample("theta", dist.Dirichlet(torch.full((2,), T.alpha)))

    weights, draws = [], []
    for _ in range(1500):
        drawn = poutine.trace(guide).get_trace(T.counts)
        scored = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(T.counts)
        weights.append(scored.nodes["x"]["fn"].log_prob(T.counts))
        draws.append(drawn.nodes["theta"]["value"])
    log_w, theta = torch.stack(weights), torch.stack(draws)
    for d in range(3):
        value, error = estimated(log_w[:, d])
        assert abs(value - float(T.log_p[d])) < 4.5 * error
        w = log_w[:, d].softmax(0)
        mean = (w[:, None] * theta[:, d]).sum(0)
        error = ((w[:, None] * (theta[:, d] - mean)).square().sum(0)).sqrt()
        assert bool(((mean - T.E_theta[d]).abs() < 4.5 * error).all())


@pytest.mark.usefixtures("double")
def test_left_to_right_estimates_the_evidence_given_topics():
    alpha = torch.full((2,), T.alpha)
    found = torch.stack([evaluation.left_to_right(T.counts, T.phi, alpha, 1) for _ in range(600)])
    for d in range(3):  # unbiased: the mean of exp is p(w)
        value, error = estimated(found[:, d])
        assert error < 0.05
        assert abs(value - float(T.log_p[d])) < 4.5 * error
    many = evaluation.left_to_right(T.counts, T.phi, alpha, 2000)
    assert torch.allclose(many, T.log_p, atol=0.1)


def test_gibbs_sampling_finds_the_exact_posterior():
    chain = Gibbs(T.documents, 3, 2, T.alpha, T.eta)
    same = []
    for i in range(8000):
        chain.sweep()
        if i >= 200:
            same.append(chain.z[0][0] == chain.z[0][3])
    batches = np.array(same, dtype=float).reshape(60, -1).mean(1)
    error = batches.std(ddof=1) / 60**0.5
    assert abs(batches.mean() - T.same_topic_in_document) < 4.5 * error


@pytest.mark.usefixtures("double")
def test_the_joint_is_its_definition():
    chain = Gibbs([[0, 1, 2, 2], [1, 1, 0]], 3, 2, 0.3, 0.2)
    of_document, of_word = torch.tensor(chain.of_document), torch.tensor(chain.of_word)
    ours = evaluation.log_joint(of_document, of_word, torch.full((2,), 0.3), torch.full((3,), 0.2))
    assert float(ours) == pytest.approx(log_joint(chain.of_document, chain.of_word, 0.3, 0.2), rel=1e-12)


def test_on_reuters_the_joint_is_the_lda_package_s_and_its_trace_the_published_one():
    import logging

    from lda import LDA as Sampler
    from lda.datasets import load_reuters

    logging.getLogger("lda").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it leaves its files open
        counts = load_reuters()
    corpus = reuters(validation=0.0, test=0.0)
    assert corpus.num_tokens("train") == 84_010
    assert sorted(map(tuple, corpus.train["x"].to_dense().long().tolist())) == sorted(map(tuple, counts.tolist()))
    sampler = Sampler(n_topics=20, n_iter=100, alpha=0.1, eta=0.01, random_state=1, refresh=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler.fit(counts)
    of_documents, of_words = torch.from_numpy(sampler.ndz_), torch.from_numpy(sampler.nzw_)
    ours = evaluation.log_joint(of_documents, of_words, torch.full((20,), 0.1), torch.full((4258,), 0.01))
    assert float(ours) == pytest.approx(sampler.loglikelihood(), rel=1e-9)
    assert float(ours) == pytest.approx(-672_761, rel=0.005)  # published, after 100 of 1,500 sweeps


# Distributions


@pytest.mark.usefixtures("double")
def test_probabilities_of_all_bags_add_up_to_one():
    weights, topics = torch.tensor([[0.3, 0.7]]), torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.6, 0.3]])
    mixture = TopicMixture(weights, topics)
    total = 0.0
    for bag in itertools.product(range(5), repeat=3):
        if sum(bag) == 4:
            orders = math.factorial(4) / math.prod(map(math.factorial, bag))
            total += orders * float(mixture.log_prob(torch.tensor([bag], dtype=torch.float64)).exp())
    assert total == pytest.approx(1.0, abs=1e-12)


def test_draws_have_the_mixture_s_frequencies():
    mixture = TopicMixture(torch.tensor([[0.3, 0.7]]), torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.6, 0.3]]), length=10)
    found = mixture.sample((20_000,)).sum((0, 1))
    p = torch.tensor([0.22, 0.48, 0.3])
    error = (p * (1 - p) * 200_000).sqrt()
    assert bool(((found - 200_000 * p).abs() < 4.5 * error).all())


@pytest.mark.parametrize("particles", [(), (4,)])
def test_sparse_and_dense_counts_score_alike(particles):
    x = torch.poisson(torch.rand(5, 7) * 2)
    weights, topics = torch.rand(*particles, 5, 3), torch.rand(*particles, 3, 7)
    mixture, words = TopicMixture(weights, topics), BagOfWords(torch.randn(*particles, 5, 7).log_softmax(-1))
    for d in (mixture, words, mixture.expand((2, *particles, 5)), words.expand((2, *particles, 5))):
        assert torch.allclose(d.log_prob(x), d.log_prob(as_csr(x)), rtol=1e-5)
        assert d.log_prob(as_csr(x)).shape == d.batch_shape


def test_counts_of_other_documents_are_refused():
    with pytest.raises(ProgramError, match="counts of shape"):
        TopicMixture(torch.ones(4, 2), torch.ones(2, 7)).log_prob(as_csr(torch.ones(5, 7)))


# Natural gradients


def ascended(x: Tensor, concentration: Tensor, alpha: float, eta: float, scale: float = 1.0) -> Tensor:
    """Take a step of coordinate ascent, document by document and word by word."""
    topics = (concentration.digamma() - concentration.sum(-1, keepdim=True).digamma()).exp()
    target = torch.full_like(concentration, eta)
    for row in x:
        gamma = torch.full((len(concentration),), alpha) + row.sum() / len(concentration)
        for _ in range(2000):
            weights = (gamma.digamma() - gamma.sum().digamma()).exp()
            r = weights[:, None] * topics
            r = row * r / r.sum(0)
            gamma = alpha + r.sum(1)
        target += scale * r
    return target


def documents(count: int = 12, words: int = 9) -> Tensor:
    return torch.poisson(torch.rand(count, words) * 3)


@pytest.mark.usefixtures("double")
def test_a_step_of_size_one_is_coordinate_ascent():
    x = documents()
    model = LDA(9, 3, 12, alpha=0.4, eta=0.2)
    guide = MeanField(model, max_steps=5000, tolerance=1e-13)
    before = guide.concentration.detach().clone()
    for _ in train(NaturalGradient(forgetting=0.0), model, guide, [as_csr(x)], sgd, num_steps=1):
        pass
    assert torch.allclose(guide.concentration.detach(), ascended(x, before, 0.4, 0.2), rtol=1e-6)


@pytest.mark.usefixtures("double")
def test_the_bound_rises_with_each_step_of_size_one():
    model = LDA(9, 3, 12, alpha=0.4, eta=0.2)
    guide = MeanField(model, max_steps=5000, tolerance=1e-12)
    steps = train(NaturalGradient(forgetting=0.0), model, guide, [as_csr(documents())], sgd, num_steps=40)
    losses = [float(step.loss) for step in steps]
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(losses))
    assert losses[-1] < losses[0] - 1


def mean_target(halves_of: int = 2) -> tuple[Tensor, Tensor]:
    """Return the mean of the targets of batches, and the target of all documents."""
    x = documents()
    model = LDA(9, 3, 12, alpha=0.4, eta=0.2)
    guide = MeanField(model, max_steps=5000, tolerance=1e-12)
    objective = NaturalGradient(forgetting=0.0)

    def target(batch):
        guide.concentration.grad = None
        objective(model, guide, as_csr(batch)).backward()
        return guide.concentration.detach() - guide.concentration.grad

    return torch.stack([target(batch) for batch in x.chunk(halves_of)]).mean(0), target(x)


@pytest.mark.usefixtures("double")
def test_batches_stand_for_all_documents():
    of_batches, of_all = mean_target()
    assert torch.allclose(of_batches, of_all, rtol=1e-9)


@pytest.mark.usefixtures("double")
def test_without_the_scale_of_batches_counts_are_too_low(monkeypatch):
    def unscaled(name, x, size, num_data):
        return pyro.plate(name, size if x is None else len(x))

    monkeypatch.setattr(pyrogen.models.topic_model, "scaled_plate", unscaled)
    of_batches, of_all = mean_target()
    assert not torch.allclose(of_batches, of_all, rtol=0.1)


@pytest.mark.usefixtures("double")
def test_bounds_have_their_order():
    """log p(x) is above the ELBO of the program, and that above the bound that factorises words' topics as well."""
    model = small_lda()
    guide = MeanField(model, max_steps=1000, tolerance=1e-12)
    objective = NaturalGradient(forgetting=0.0)
    steps = list(train(objective, model, guide, [T.counts], sgd, num_steps=60))
    factorised = -float(steps[-1].loss)
    draws = torch.stack([-ELBO(num_particles=1000)(model, guide, T.counts).detach() for _ in range(20)])
    elbo, error = float(draws.mean()), float(draws.std() / 20**0.5)
    assert factorised < elbo - 4.5 * error
    assert elbo + 4.5 * error < T.log_evidence


def test_other_posteriors_are_refused():
    model = small_lda()
    encoder = DirichletEncoder(model, BagOfWordsMLP(3, (4,), 2))
    with pytest.raises(ProgramError, match="computed from parameters"):
        NaturalGradient()(model, encoder, T.counts.float())
    with pytest.raises(ProgramError, match="Dirichlet sites"):
        NaturalGradient()(*prodlda(DataSpec((3,), "counts"), topics=2), T.counts.float())
    with pytest.raises(ProgramError, match="no guide"):
        NaturalGradient()(model, None, T.counts.float())


def test_a_network_in_the_model_has_its_usual_gradient():
    scale = nn.Parameter(torch.tensor(1.5))

    def model(x):
        phi = pyro.sample("phi", dist.Dirichlet(torch.ones(3)))
        with pyro.plate("document", len(x)):
            pyro.sample("x", TopicMixture(scale * torch.ones(len(x), 1), phi[..., None, :]), obs=x)

    concentration = nn.Parameter(torch.tensor([2.0, 3.0, 4.0]))

    def guide(x):
        pyro.sample("phi", dist.Dirichlet(concentration))

    x = torch.tensor([[1.0, 2.0, 0.0]])
    NaturalGradient()(model, guide, x).backward()
    assert scale.grad is not None
    assert float(scale.grad) == pytest.approx(-3 / 1.5)


# Coordinate ascent


def test_weights_are_scikit_learn_s():
    from sklearn.decomposition import LatentDirichletAllocation

    x = documents(30, 20).numpy()
    peer = LatentDirichletAllocation(
        4, doc_topic_prior=0.3, max_iter=3, max_doc_update_iter=3000, mean_change_tol=1e-9, random_state=0
    ).fit(x)
    log_topics = log_geometric_mean(torch.from_numpy(peer.components_).double())
    gamma = local_optimum(torch.from_numpy(x).double(), log_topics, torch.full((4,), 0.3).double(), max_steps=3000,
                          tolerance=1e-10)  # fmt: skip
    ours = gamma / gamma.sum(-1, keepdim=True)
    assert torch.allclose(ours, torch.from_numpy(peer.transform(x)).double(), atol=1e-3)


@pytest.mark.usefixtures("double")
def test_points_are_modes_in_the_softmax_basis():
    x = documents(4, 6)
    model = LDA(6, 3, 4, alpha=0.4, eta=0.2)
    guide = PointTopics(model)
    topics = guide.logits.detach().log_softmax(-1)
    weights = log_mean(local_optimum(x, topics, model.alpha, log_mean, 20_000, 1e-15))
    logits = weights.clone().requires_grad_()
    theta = logits.softmax(-1)
    density = (model.alpha * theta.log()).sum() + (x * (theta @ topics.exp()).log()).sum()
    (gradient,) = torch.autograd.grad(density, logits)
    assert float(gradient.abs().max()) < 1e-5


@pytest.mark.usefixtures("double")
def test_the_mode_s_loss_is_the_density_in_the_softmax_basis():
    x = documents(4, 6)
    model = LDA(6, 3, 4, alpha=0.4, eta=0.2)
    guide = PointTopics(model)
    trace = poutine.trace(guide).get_trace(x)
    phi, theta = trace.nodes["phi"]["value"], trace.nodes["theta"]["value"]
    log_prior = dist.Dirichlet(model.eta).log_prob(phi).sum() + phi.log().sum()
    log_prior = log_prior + dist.Dirichlet(model.alpha).log_prob(theta).sum() + theta.log().sum()
    expected = log_prior + (x * (theta @ phi).log()).sum()
    assert float(-ELBO()(model, guide, x).detach()) == pytest.approx(float(expected.detach()), rel=1e-9)


# Collapsed variational Bayes


def looped(x: Tensor, alpha: float, eta: float, beta: float, steps: int, r: dict) -> Tensor:
    """Take sweeps of CVB0 by its definition, all words at once; return expected counts of words in topics."""
    num_topics = len(next(iter(r.values())))
    for _ in range(steps):
        of_documents, of_words = torch.zeros(len(x), num_topics), torch.zeros(num_topics, x.shape[1])
        for (d, v), value in r.items():
            of_documents[d] += x[d, v] * value
            of_words[:, v] += x[d, v] * value
        new = {}
        for (d, v), value in r.items():
            p = (of_documents[d] - value + alpha) * (of_words[:, v] - value + eta)
            p = (p / (of_words.sum(1) - value + eta * x.shape[1])) ** beta
            new[d, v] = p / p.sum()
        r = new
    of_words = torch.zeros(num_topics, x.shape[1])
    for (d, v), value in r.items():
        of_words[:, v] += x[d, v] * value
    return of_words


@cache
def fixed_point(leave_out: bool = True, learned: float = 1.0, beta: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return the counts that CollapsedVB ends at, and what a sweep of CVB0 by loops makes of its words' factors."""
    x = documents(8, 6)
    model = LDA(6, 3, 8, alpha=0.4, eta=0.2)
    guide = MeanField(model, log_mean, max_steps=1)
    steps = 60 if leave_out else 1
    objective = CollapsedVB(forgetting=0.0, local_steps=steps, inverse_temperature=learned)
    for _ in train(objective, model, guide, [x], sgd, num_steps=400, validate=False):
        pass
    counts = guide.concentration.detach() - model.eta
    weights = guide.weights(x)
    _, rows, columns, n = entries(as_csr(x))
    topics = log_mean(guide.concentration.detach()).exp()
    r = log_mean(weights).exp()[rows] * topics.T[columns]
    r = r / r.sum(-1, keepdim=True)
    for _ in range(2000):
        of_documents = torch.zeros(len(x), 3).index_add(0, rows, n[:, None] * r)
        p = (of_documents[rows] - r + 0.4) * (counts.T[columns] - r + 0.2) / (counts.sum(1) - r + 0.2 * 6)
        r = p**beta / (p**beta).sum(-1, keepdim=True)
    found = {(int(d), int(v)): value for d, v, value in zip(rows, columns, r, strict=True)}
    return counts, looped(x, 0.4, 0.2, beta, 1, found)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("beta", [1.0, 0.9, 1.2])
def test_collapsed_variational_bayes_ends_at_a_fixed_point_of_cvb0(beta):
    counts, again = fixed_point(learned=beta, beta=beta)
    assert counts.std(0).max() > 0.5, "topics have become one"
    assert torch.allclose(counts, again, atol=1e-3)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("beta", [0.9, 1.2])
def test_mutant_inverse_temperature_ignored(beta):
    counts, again = fixed_point(learned=1.0, beta=beta)
    assert not torch.allclose(counts, again, atol=1e-1)


@pytest.mark.usefixtures("double")
def test_a_word_that_explains_itself_ends_elsewhere(monkeypatch):
    original = pyrogen.inference.collapsed_vb.CollapsedVB._explained

    def unexcluded(self, site, concentration, eta, alpha):
        _, loss = original(self, site, concentration, eta, alpha)
        _, rows, columns, n = entries(as_csr(site["value"]))
        r = site["fn"].weights[rows] * site["fn"].topics.T[columns]
        r = r / r.sum(-1, keepdim=True)
        return torch.zeros(6, 3).index_add(0, columns, n[:, None] * r).T, loss

    monkeypatch.setattr(pyrogen.inference.collapsed_vb.CollapsedVB, "_explained", unexcluded)
    counts, again = fixed_point.__wrapped__(leave_out=False)
    assert not torch.allclose(counts, again, atol=1e-1)


# Known topics


def with_anchors(num_documents: int = 400, num_topics: int = 4, words: int = 40) -> tuple[Tensor, Tensor]:
    """Draw documents of topics that each have words of their own; return counts, and the topics."""
    topics = torch.full((num_topics, words), 0.1)
    for k in range(num_topics):
        topics[k, k * 10 : k * 10 + 5] = 4.0
    topics = topics / topics.sum(-1, keepdim=True)
    theta = dist.Dirichlet(torch.full((num_topics,), 0.2)).sample((num_documents,))
    return TopicMixture(theta, topics, length=80).sample(), topics


def distance(found: Tensor, topics: Tensor) -> float:
    """Return the largest total variation of a topic to its partner, in the pairing that is best."""
    gaps = (found[:, None] - topics).abs().sum(-1) / 2
    best = min(
        itertools.permutations(range(len(topics))), key=lambda order: sum(gaps[i, j] for i, j in enumerate(order))
    )
    return max(float(gaps[i, j]) for i, j in enumerate(best))


def fitted(name: str, objective, x: Tensor, optimizer=sgd, epochs: int = 30, **settings):
    spec = DataSpec((x.shape[1],), "counts", num_data=len(x))
    model, guide = (prodlda if name == "prodlda" else lda)(spec, topics=4, **settings)
    for _ in train(objective, model, guide, Batches({"x": as_csr(x)}, 100), optimizer, epochs=epochs, validate=False):
        pass
    return model, guide


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.02)


CASES = {
    "natural gradient": ("mean-field", NaturalGradient, sgd, 30),
    "collapsed": ("collapsed", CollapsedVB, sgd, 30),
    "point": ("map", ELBO, adam, 60),
    "dirichlet": ("dirichlet", ELBO, adam, 120),
    "logistic-normal": ("logistic-normal", ELBO, adam, 120),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_known_topics_are_found(case):
    pyro.set_rng_seed(2)
    x, topics = with_anchors()
    guide_name, objective, optimizer, epochs = CASES[case]
    _, guide = fitted("lda", objective(), x, optimizer, epochs, guide=guide_name, hidden=(32,))
    phi = poutine.trace(guide).get_trace(x[:2]).nodes["phi"]["fn"].mean
    assert distance(phi.detach(), topics) < 0.1


def test_prodlda_finds_the_words_of_known_topics():
    pyro.set_rng_seed(2)
    x, topics = with_anchors()

    def quick(parameters):
        return torch.optim.Adam(parameters, lr=0.01, betas=(0.99, 0.999))

    model, _ = fitted("prodlda", ELBO(), x, quick, 100, hidden=(32, 32))
    assert float(evaluation.topic_stability(model.beta.detach(), topics, top=5).min()) > 0.6


def test_a_correlated_topic_model_sees_which_topics_come_together():
    pyro.set_rng_seed(0)
    _, topics = with_anchors()
    tril = torch.linalg.cholesky(torch.tensor([[1.0, 0.9, 0, 0], [0.9, 1, 0, 0], [0, 0, 1, 0.9], [0, 0, 0.9, 1]]) * 4)
    z = dist.MultivariateNormal(torch.zeros(4), scale_tril=tril).sample((600,))
    x = TopicMixture(z.softmax(-1), topics, length=80).sample()
    model = CorrelatedTopicModel(40, 4, 600)
    guide = NormalEncoder(model, BagOfWordsMLP(40, (64,), 8))
    guide.log_concentration.data = (topics * 5000 + 0.01).log()  # which topic is which
    for _ in train(ELBO(), model, guide, Batches({"x": as_csr(x)}, 100), adam, epochs=60, validate=False):
        pass
    found = model.correlations().detach()
    # Logits are known up to a constant for each document: compare what is left of it.
    together, apart = found[0, 1] + found[2, 3], found[0, 2] + found[1, 3]
    assert float(together - apart) > 1.0


# Figures


def test_halves_are_all_words_of_a_document():
    x = documents(20, 9)
    first, second = halves(as_csr(x), torch.Generator().manual_seed(0))
    assert torch.equal(first.to_dense() + second.to_dense(), x)
    assert bool(((first.to_dense().sum(1) - second.to_dense().sum(1)) <= 1).all())


@pytest.mark.usefixtures("double")
def test_completion_is_by_hand_what_it_is_by_machine():
    x = documents(20, 9)
    model = LDA(9, 3, 20, alpha=0.4, eta=0.2)
    guide = MeanField(model, max_steps=3000, tolerance=1e-12)
    found = evaluation.document_completion(model, guide, [{"x": as_csr(x)}])
    seen, unseen = halves(x, torch.Generator().manual_seed(0))
    gamma, concentration = guide.weights(seen), guide.concentration.detach()
    p = (gamma / gamma.sum(-1, keepdim=True)) @ (concentration / concentration.sum(-1, keepdim=True))
    expected = (unseen.to_dense() * p.log()).sum() / unseen.values().sum()
    assert found.value == pytest.approx(float(expected), rel=1e-9)
    assert evaluation.perplexity(found).value == pytest.approx(math.exp(-float(expected)), rel=1e-9)


def test_a_guide_that_saw_the_words_it_foretells_would_do_better():
    """The half that is scored is not the half that is seen."""
    x = as_csr(documents(200, 30))
    model = LDA(30, 10, 200, alpha=0.05, eta=0.2)
    guide = MeanField(model)
    guide.concentration.data = torch.eye(30)[::3] * 50 + 0.1
    _, unseen = halves(x, torch.Generator().manual_seed(0))
    honest = evaluation.document_completion(model, guide, [{"x": x}]).value
    gamma = guide.weights(unseen)
    topics = guide.concentration.detach() / guide.concentration.detach().sum(-1, keepdim=True)
    scores = TopicMixture(gamma / gamma.sum(-1, keepdim=True), topics).log_prob(unseen)
    assert honest < float(scores.sum() / unseen.values().sum()) - 0.05


def test_coherence_is_gensim_s():
    from gensim.corpora import Dictionary
    from gensim.models import CoherenceModel

    corpus = reuters(validation=0.0, test=0.0)
    x = take(corpus.train["x"], torch.arange(60))
    texts = [
        [corpus.vocabulary[w] for w, n in zip(row.nonzero()[:, 0].tolist(), row[row > 0].tolist(), strict=True)
         for _ in range(int(n))]
        for row in x.to_dense()
    ]  # fmt: skip
    topics = torch.rand(3, len(corpus.vocabulary)) * (x.to_dense().sum(0) > 0)
    words = [[corpus.vocabulary[i] for i in row.topk(10).indices.tolist()] for row in topics]
    peer = CoherenceModel(
        topics=words, texts=texts, dictionary=Dictionary(texts), coherence="c_npmi", window_size=10**6, processes=1
    )
    ours = evaluation.npmi(topics, x)
    assert ours.tolist() == pytest.approx(peer.get_coherence_per_topic(), abs=1e-6)


def test_counts_of_gensim_and_of_scipy_make_one_corpus():
    from scipy.sparse import csr_matrix

    dense = np.array([[2, 0, 1], [0, 3, 0]])
    pairs = [[(0, 2), (2, 1)], [(1, 3)]]
    made = [
        from_counts(counts, ["a", "b", "c"], validation=0.0, test=0.0) for counts in (dense, csr_matrix(dense), pairs)
    ]
    assert len({corpus.fingerprint() for corpus in made}) == 1


# What an audit found that could go unseen


@pytest.mark.usefixtures("double")
def test_batches_stand_for_all_documents_in_collapsed_steps_too():
    """Twice the same documents: a batch of the one half has the target of both."""
    x = documents(8, 6)
    both = torch.cat([x, x])
    model = LDA(6, 3, 16, alpha=0.4, eta=0.2)
    guide = MeanField(model, log_mean)
    targets = []
    for batch in (x, both):
        guide.concentration.grad = None
        CollapsedVB(forgetting=0.0)(model, guide, batch).backward()
        targets.append(guide.concentration.detach() - guide.concentration.grad)
    assert torch.allclose(*targets, rtol=1e-9)


@pytest.mark.usefixtures("double")
def test_the_collapsed_loss_is_of_each_word_given_all_others():
    """With one topic, that is Polya's urn: (count of the word among the others + eta) / (all others + V eta)."""
    x = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0]])
    model = LDA(3, 1, 2, alpha=0.4, eta=0.2)
    guide = MeanField(model, log_mean)
    guide.concentration.data = (x.sum(0) + 0.2)[None]
    loss = float(CollapsedVB()(model, guide, x).detach())
    totals = x.sum(0)
    expected = -float((x * ((totals - 1 + 0.2) / (totals.sum() - 1 + 0.6)).log()).sum())
    assert loss == pytest.approx(expected, rel=1e-9)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("objective", [NaturalGradient, CollapsedVB])
def test_steps_have_the_sizes_of_their_schedule(objective):
    x = documents(8, 6)
    model = LDA(6, 3, 8, alpha=0.4, eta=0.2)
    guide = MeanField(model, log_mean)
    learner, full = objective(delay=3.0, forgetting=0.6), objective(forgetting=0.0)
    for t in range(3):
        pulls = []
        for each in (learner, full):
            guide.concentration.grad = None
            each(model, guide, x).backward()
            pulls.append(guide.concentration.grad.clone())
        assert torch.allclose(pulls[0], (3.0 + t) ** -0.6 * pulls[1], rtol=1e-9)
        learner.after_step("programs")


@pytest.mark.usefixtures("double")
def test_a_plate_that_scales_topics_is_taken_off():
    x = documents(4, 5)
    concentration = nn.Parameter(torch.rand(2, 5) + 1)

    def topics(fn):
        with pyro.plate("topic", 6, subsample=torch.arange(2)):  # two of six
            return pyro.sample("phi", fn)

    def model(x):
        phi = topics(dist.Dirichlet(torch.full((5,), 0.3)))
        with pyro.plate("document", 4):
            pyro.sample("x", TopicMixture(torch.full((4, 2), 0.5), phi), obs=x)

    def guide(x):
        topics(dist.Dirichlet(concentration))

    NaturalGradient(forgetting=0.0)(model, guide, x).backward()
    target = concentration.detach() - concentration.grad
    assert float(target.sum()) == pytest.approx(float(x.sum()) / 3 + 0.3 * 10, rel=1e-9)


@pytest.mark.usefixtures("double")
def test_the_error_of_a_completion_is_that_of_a_ratio_over_documents():
    x = documents(400, 9)
    model = LDA(9, 3, 400, alpha=0.4, eta=0.2)
    guide = MeanField(model)
    found = [evaluation.document_completion(model, guide, [{"x": part}], seed=i) for i, part in enumerate(x.chunk(20))]
    spread = torch.tensor([estimate.value for estimate in found]).std()
    typical = sum(estimate.stderr for estimate in found) / 20
    assert 0.5 < float(spread) / typical < 2.0


def test_draws_of_latents_are_averaged_as_probabilities():
    """A guide that is either here or there: the mean of probabilities, not of their logarithms."""

    def model(x):
        with pyro.plate("document", len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.full((len(x),), 0.5)))
            p = torch.where(z[..., None] > 0, torch.tensor([0.9, 0.1]), torch.tensor([0.1, 0.9]))
            pyro.sample("x", BagOfWords(p.log()), obs=x)

    def guide(x):
        with pyro.plate("document", len(x)):
            pyro.sample("z", dist.Bernoulli(torch.full((len(x),), 0.5)))

    found = evaluation.document_completion(model, guide, [{"x": torch.full((50, 2), 4.0)}], num_particles=400)
    assert found.value == pytest.approx(math.log(0.5), abs=0.02)


def test_halves_are_cut_at_random_and_alike_in_batches_of_any_size():
    x = torch.full((300, 2), 3.0)
    first, _ = halves(x, torch.Generator().manual_seed(0))
    assert len(first.to_dense().unique(dim=0)) > 2
    model = LDA(2, 2, 300)
    guide = MeanField(model)
    values = [
        evaluation.document_completion(model, guide, [{"x": part} for part in x.split(size)]).value
        for size in (300, 7, 1)
    ]
    assert values == pytest.approx([values[0]] * 3, rel=1e-4)


def test_a_guide_without_a_latent_completes_nothing():
    model = LDA(9, 3, 20)
    with pytest.raises(ProgramError, match="missing in the guide"):
        evaluation.document_completion(model, None, [{"x": documents(4, 9)}])


def test_prodlda_s_prior_is_laplace_s_approximation():
    """In the softmax basis, -d2 log p of Dirichlet(alpha) at its mode is alpha K (p - p p^T) with p = 1 / K."""
    alpha, k = 0.7, 5
    p = torch.full((k,), 1 / k, dtype=torch.float64)
    precision = alpha * k * (torch.diag(p) - torch.outer(p, p))
    variance = torch.linalg.pinv(precision).diagonal()[0]  # of logits that add up to zero
    assert ProdLDA(7, k, 10, alpha).scale ** 2 == pytest.approx(float(variance), rel=1e-9)


def test_a_batch_of_one_document_has_no_variance_and_is_normalised_by_all():
    model = ProdLDA(7, 3, 10).train()
    assert model(torch.ones(1, 7)).shape == (1, 7)


@pytest.mark.usefixtures("double")
def test_many_particles_estimate_the_evidence_as_well_as_one():
    """Averaged word by word, particles would be biased upwards, however many there are."""
    alpha = torch.full((2,), 0.1)
    x = torch.tensor([[3.0, 1.0, 2.0]])
    one = torch.cat([evaluation.left_to_right(x, T.phi, alpha, 1) for _ in range(800)])
    many = torch.cat([evaluation.left_to_right(x, T.phi, alpha, 20) for _ in range(40)])
    (a, error_a), (b, error_b) = estimated(one), estimated(many)
    assert abs(a - b) < 4.5 * math.hypot(error_a, error_b)


def test_a_word_that_no_topic_has_is_impossible():
    assert (
        evaluation.left_to_right(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]]), torch.ones(1)).item()
        == -math.inf
    )


def test_a_word_that_no_document_has_is_in_no_coherence():
    topics = torch.tensor([[0.5, 0.3, 0.2]])
    found = evaluation.npmi(topics, torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]]), top=3)
    assert found.item() == pytest.approx(0.0, abs=1e-9)  # and the two that documents have are independent


def test_words_that_are_absent_have_no_gradient():
    weights = torch.tensor([[0.5, 0.5]], requires_grad=True)
    topics = torch.tensor([[1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    TopicMixture(weights, topics).log_prob(torch.tensor([[2.0, 0.0]])).sum().backward()
    assert bool(weights.grad.isfinite().all())
    assert bool(topics.grad.isfinite().all())


def test_small_concentrations_do_not_underflow():
    x = torch.eye(6)
    model = LDA(6, 2, 6, alpha=0.1, eta=0.001)
    guide = MeanField(model)
    for step in train(NaturalGradient(delay=1.0), model, guide, Batches({"x": x}, 1), sgd, num_steps=30):
        assert bool(step.loss.isfinite())


def check_a_sweep():
    """A step's target, and its loss, are those of a sweep by the definition, at any temperature."""
    x, alpha, eta, beta = documents(8, 6), 0.4, 0.2, 0.7
    model = LDA(6, 3, 8, alpha, eta)
    guide = MeanField(model, log_mean)
    objective = CollapsedVB(forgetting=0.0, inverse_temperature=beta)
    loss = objective(model, guide, x)
    loss.backward()
    weights, phi = (p / p.sum(-1, keepdim=True) for p in (guide.weights(x), guide.concentration.detach()))
    of_words = guide.concentration.detach() - eta
    start = {(d, v): (weights[d] * phi[:, v]) ** beta for d, v in itertools.product(range(8), range(6)) if x[d, v]}
    start = {at: value / value.sum() for at, value in start.items()}
    of_documents = [sum(x[d, v] * value for (d, v), value in start.items() if d == of) for of in range(8)]
    target, expected = torch.full((3, 6), eta), 0.0
    for (d, v), r in start.items():
        p = (of_documents[d] - r + alpha) * ((of_words[:, v] - r).clamp(min=0) + eta)
        p = p / ((of_words.sum(1) - r).clamp(min=0) + 6 * eta)
        expected -= x[d, v] * (p.sum() / (x[d].sum() - 1 + 3 * alpha)).log()
        target[:, v] += x[d, v] * p**beta / (p**beta).sum()
    assert torch.allclose(guide.concentration.detach() - guide.concentration.grad, target, rtol=1e-9)
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.usefixtures("double")
def test_a_sweep_at_a_temperature():
    check_a_sweep()


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("plain", [(0,), (1,), (0, 1)], ids=["start", "sweep", "both"])
def test_mutant_factors_without_their_power(plain, monkeypatch):
    original, calls = pyrogen.inference.collapsed_vb.tempered, itertools.count()
    monkeypatch.setattr(
        pyrogen.inference.collapsed_vb, "tempered", lambda p, beta: original(p, 1.0 if next(calls) in plain else beta)
    )
    with pytest.raises(AssertionError):
        check_a_sweep()


def test_powers_do_not_underflow():
    x = documents(8, 6).float()
    model = LDA(6, 3, 8, alpha=0.4, eta=0.2)
    guide = MeanField(model, log_mean)
    CollapsedVB(forgetting=0.0, inverse_temperature=500.0)(model, guide, x).backward()
    assert guide.concentration.grad.isfinite().all()


def check_annealing(objective):
    """Words' factors at each step are those of a temperature that does not change."""
    x = documents(8, 6)
    model = LDA(6, 3, 8, alpha=0.4, eta=0.2)
    guide = MeanField(model, log_mean)
    for beta in (0.5, 0.75, 1.0, 1.0):
        pulls = []
        for each in (objective, CollapsedVB(forgetting=0.0, inverse_temperature=beta)):
            guide.concentration.grad = None
            each(model, guide, x).backward()
            pulls.append(guide.concentration.grad.clone())
        assert torch.allclose(*pulls, rtol=1e-9)
        objective.after_step("programs")


@pytest.mark.usefixtures("double")
def test_the_temperature_of_collapsed_steps_is_annealed():
    check_annealing(CollapsedVB(forgetting=0.0, inverse_temperature=Annealing(0.5, 1.0, 2)))


@pytest.mark.usefixtures("double")
def test_mutant_a_temperature_that_stays():
    with pytest.raises(AssertionError):
        check_annealing(CollapsedVB(forgetting=0.0, inverse_temperature=0.5))


@pytest.mark.parametrize(
    "beta", [0.0, -1.0, float("inf"), float("nan"), Annealing(0.0, 1.0, 5), Annealing(1.0, 0.0, 5)]
)
def test_temperatures_that_are_refused(beta):
    with pytest.raises(ValueError, match="inverse_temperature must be positive and finite"):
        CollapsedVB(inverse_temperature=beta)


def test_settings_of_a_temperature():
    x = documents(8, 6).float()
    model = LDA(6, 3, 8)
    make = partial(collapsed_vb, model, MeanField(model, log_mean), {"x": x})
    moving = make(inverse_temperature=0.7, warmup=5).inverse_temperature
    assert (moving.start, moving.end, moving.steps) == (0.7, 1.0, 5)
    assert make(inverse_temperature=0.7).inverse_temperature == 0.7
    for said, settings in {
        "warmup must not be negative": {"inverse_temperature": 0.7, "warmup": -1},
        "a warmup of 5 steps moves an inverse temperature to 1, and it is 1": {"warmup": 5},
        "annealing needs finite ends": {"inverse_temperature": float("inf"), "warmup": 5},
    }.items():
        with pytest.raises(UsageError, match=said):
            make(**settings)
