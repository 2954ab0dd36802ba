"""Total correlations of codes, against closed forms and direct computation. Each has a mutant."""

import math
from functools import partial
from itertools import combinations

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyrogen.inference import ELBO, BetaTCVAE, FactorVAE, aggregate, total_correlation, train
from pyrogen.inference.aggregate import codes, latent_site, log_densities

COVARIANCE = torch.tensor([[2.0, 1.0, 0.0], [1.0, 1.5, -0.4], [0.0, -0.4, 1.0]], dtype=torch.float64)
"""Of the codes: their posteriors' means have what is left after unit variances of .4 on the diagonal."""
NOISE = 0.4**0.5


def closed_form(covariance):
    """-1/2 log det of the correlation matrix."""
    scale = covariance.diagonal().sqrt()
    return float(-torch.linalg.slogdet(covariance / scale / scale[:, None])[1] / 2)


TRUTH = closed_form(COVARIANCE)


def means(size):
    loc = dist.MultivariateNormal(torch.zeros(3, dtype=torch.float64), COVARIANCE - NOISE**2 * torch.eye(3))
    return loc.sample((size,))


def model(x, subsample_size=None):
    with pyro.plate("data", len(x), subsample_size=subsample_size) as i:
        z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[1]), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x[i])


def guide(x, subsample_size=None):
    """Normal around each datum, so that the aggregate is known where the data's distribution is."""
    with pyro.plate("data", len(x), subsample_size=subsample_size) as i:
        pyro.sample("z", dist.Normal(x[i], NOISE).to_event(1))


def loss_of(objective, x, seed=1, **settings):
    pyro.set_rng_seed(seed)
    return objective(model, guide, x, **settings)


def drawn(x, **settings):
    """The guide's site."""
    return latent_site(pyro.poutine.trace(guide).get_trace(x, **settings))


# The critic's estimate


class Quadratic(nn.Module):
    """Scores with all products of two coordinates: the logarithm of the ratio of two normal densities is among them."""

    def __init__(self, latent=3, bias=0.0):
        super().__init__()
        self.products = nn.Parameter(torch.zeros(latent, latent, dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor(bias, dtype=torch.float64))

    def forward(self, z):
        products = self.products.to(z.dtype)
        return self.bias.to(z.dtype) + ((z @ products) * z).sum(1)


def trained(objective, x):
    """Train the critic on one sample by L-BFGS; codes and permutations are the same at each call."""
    optimizer = torch.optim.LBFGS(objective.critic.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def closure():
        pyro.set_rng_seed(1)
        optimizer.zero_grad()
        loss = objective.critic_loss(model, guide, x)
        loss.backward()
        return loss

    optimizer.step(closure)
    return objective


def test_a_trained_critic_finds_the_total_correlation():
    """On other data: the mean logit is within .02 nat, and the bound that it gives is not above the truth."""
    objective = trained(FactorVAE(Quadratic(), gamma=1.0), means(20_000))
    size = 100_000
    x = means(size)
    found = float((loss_of(objective, x) - loss_of(ELBO(), x)).detach()) / size
    assert found == pytest.approx(TRUTH, abs=0.02)
    with torch.no_grad():
        z = codes(drawn(x))
        real, ratio = objective.critic(z), objective.critic(aggregate.permuted(z)).exp()
    # Donsker and Varadhan: E_q D - log E_p e^D is below KL(q || p) for any D.
    error = float((real.var() / size + ratio.var() / size / ratio.mean() ** 2).sqrt())
    bound = float(real.mean() - ratio.mean().log())
    assert TRUTH - 0.02 < bound < TRUTH + 3 * error


def test_mutant_one_permutation_for_all_coordinates(monkeypatch):
    """Data are exchanged and nothing else: no total correlation is seen."""
    monkeypatch.setattr(total_correlation, "permuted", lambda z: z[torch.randperm(len(z))])
    with pytest.raises(AssertionError, match=r"assert -?0\.0"):
        test_a_trained_critic_finds_the_total_correlation()


def test_mutant_labels_swapped(monkeypatch):
    game = total_correlation.GAMES["minimax"]
    monkeypatch.setitem(total_correlation.GAMES, "minimax", game._replace(real=game.fake, fake=game.real))
    with pytest.raises(AssertionError, match=r"assert -0\.[2-9]"):
        test_a_trained_critic_finds_the_total_correlation()


def test_the_critics_loss_at_the_best_ratio():
    """Below log 4, that of a guess, and least there among multiples of the logarithm of the ratio; 20,000 draws."""
    x = means(20_000)
    losses = []
    best = FactorVAE(Quadratic())
    own = torch.linalg.inv(COVARIANCE)
    with torch.no_grad():
        best.critic.products.copy_((torch.diag(1 / COVARIANCE.diagonal()) - own) / 2)
        best.critic.bias.fill_(TRUTH)
        for factor in (1.0, 0.8, 1.2, -1.0):
            scaled = FactorVAE(Quadratic(bias=factor * TRUTH))
            scaled.critic.products.copy_(factor * best.critic.products)
            pyro.set_rng_seed(2)
            losses.append(float(scaled.critic_loss(model, guide, x)))
    assert losses[0] < math.log(4)
    assert losses[0] == min(losses)


def test_no_weight_is_the_bound():
    x = means(7)
    for analytic_kl in (True, False):
        expected = loss_of(ELBO(analytic_kl=analytic_kl), x)
        for objective in (FactorVAE(Quadratic(bias=3.0), 0.0, analytic_kl),
                          BetaTCVAE(1.0, 1.0, 1.0, analytic_kl=analytic_kl)):  # fmt: skip
            torch.testing.assert_close(loss_of(objective, x), expected, rtol=0, atol=0)


def test_mutant_weights_of_zero_are_not_the_bound():
    x = means(7)
    assert not torch.isclose(loss_of(BetaTCVAE(0.0, 0.0, 0.0), x), loss_of(ELBO(), x))


def test_the_critics_term_is_a_sum_over_data():
    """A constant logit counts once for each of 40 data, of which the plate holds 8."""
    x, objective = means(40), FactorVAE(Quadratic(bias=0.7), gamma=2.0)
    added = loss_of(objective, x, subsample_size=8) - loss_of(ELBO(), x, subsample_size=8)
    torch.testing.assert_close(added, torch.tensor(2.0 * 0.7 * 40, dtype=torch.float64))


# Estimates without a critic


def parts(x, objective=BetaTCVAE, **settings):
    """The three parts of the divergence, in nats a datum."""
    plate = {name: settings.pop(name) for name in ("subsample_size",) if name in settings}
    bound = loss_of(ELBO(), x, **plate)
    weights = ((2.0, 1.0, 1.0), (1.0, 2.0, 1.0), (1.0, 1.0, 2.0))
    return [float(loss_of(objective(*w, **settings), x, **plate) - bound) / len(x) for w in weights]


def mixture_parts(x):
    """The same, of all data at once, by densities of mixtures from Pyro."""
    pyro.set_rng_seed(1)
    z = drawn(x)["value"]
    equal = dist.Categorical(torch.ones(len(x), dtype=torch.float64))
    together = dist.MixtureSameFamily(equal, dist.Normal(x, NOISE).to_event(1)).log_prob(z)
    each = [dist.MixtureSameFamily(equal, dist.Normal(x[:, j], NOISE)).log_prob(z[:, j]) for j in range(x.shape[1])]
    product = torch.stack(each).sum(0)
    given = dist.Normal(x, NOISE).to_event(1).log_prob(z)
    prior = dist.Normal(torch.zeros_like(z), 1.0).to_event(1).log_prob(z)
    return [float(part.mean()) for part in (given - together, together - product, product - prior)]


def test_all_data_at_once_are_exact():
    x = means(50)
    assert parts(x) == pytest.approx(mixture_parts(x), abs=1e-9)
    assert parts(x, num_data=50) == pytest.approx(mixture_parts(x), abs=1e-9)


def test_minibatch_weights_of_all_data_are_too_low_by_log_n():
    """The paper's weights are 1 / (N M): of all data, each logarithm is less than the exact one by log N."""
    x, shift = means(50), math.log(50)
    exact = mixture_parts(x)
    expected = [exact[0] + shift, exact[1] + 2 * shift, exact[2] - 3 * shift]
    assert parts(x, sampling="weighted") == pytest.approx(expected, abs=1e-9)


def test_mutant_shares_forgotten(monkeypatch):
    """Without log(N M): sums of densities in place of means."""
    monkeypatch.setattr(aggregate, "log_shares", lambda batch, n, sampling, like: like.new_zeros(batch, batch))
    for test in (test_all_data_at_once_are_exact, test_minibatch_weights_of_all_data_are_too_low_by_log_n):
        with pytest.raises(AssertionError):
            test()


def mean_density(sampling):
    """Average the estimated density of one code over all batches of 3 of 6 data that its own datum is in."""
    x = means(6)
    z = x[0] + 0.3
    found = []
    for others in combinations(range(1, 6), 2):
        batch = x[[0, *others]]

        densities = log_densities(drawn(batch) | {"value": z.expand(3, 3)}, 6, sampling)
        found.append(torch.cat([densities.aggregate[:1], densities.coordinates[0]]).exp())
    exact = dist.Normal(x, NOISE).log_prob(z).exp()
    return torch.stack(found).mean(0), torch.cat([exact.prod(1, keepdim=True), exact], 1).mean(0)


def test_stratified_densities_are_unbiased():
    torch.testing.assert_close(*mean_density("stratified"))


def test_mutant_weighted_densities_are_biased():
    with pytest.raises(AssertionError):
        torch.testing.assert_close(*mean_density("weighted"))


def test_many_data_have_the_closed_forms():
    """Of normal data: TC as above, I(x; z) and the dimension-wise KL by the codes' variances; means over 2,000 data."""
    x = means(2_000)
    information = float(torch.linalg.slogdet(COVARIANCE / NOISE**2)[1] / 2)
    variance = COVARIANCE.diagonal()
    dimension_wise = float((variance - 1 - variance.log()).sum() / 2)
    found = parts(x)
    # Each is a mean of quadratic forms with standard deviations near 1, and the data's own covariance is 2% off.
    assert found == pytest.approx([information, TRUTH, dimension_wise], abs=0.12)
    assert found[1] == pytest.approx(TRUTH, abs=0.05)


def small_batches(sampling, size=16):
    """The total correlation by batches of 16 of 2,000 data, with its standard error; the exact one."""
    x = means(2_000)
    found = []
    for _ in range(1_000):
        densities = log_densities(drawn(x, subsample_size=size), len(x), sampling)
        found.append((densities.aggregate - densities.coordinates.sum(1)).mean())
    found = torch.stack(found)
    return float(found.mean()), float(found.std() / len(found) ** 0.5), mixture_parts(x)[1]


def test_small_batches_understate_the_total_correlation():
    mean, error, exact = small_batches("stratified")
    assert 0.3 * exact < mean < exact - 4.5 * error


def test_mutant_small_batches_by_the_papers_weights():
    """They overstate it, by about log N for each coordinate after the first."""
    mean, _, exact = small_batches("weighted")
    assert mean == pytest.approx(exact + 2 * math.log(2_000), abs=0.3)


def test_the_size_of_the_data_is_the_plates():
    x = means(200)
    torch.testing.assert_close(parts(x, subsample_size=20), parts(x, subsample_size=20, num_data=200))
    assert parts(x, subsample_size=20) != pytest.approx(parts(x, subsample_size=20, num_data=20), abs=0.01)


# What training makes of it


class Encoder(nn.Module):
    """A linear normal guide of two factors."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(2) / 2)
        self.log_scale = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ self.weight.T, self.log_scale.exp()).to_event(1))


def noisy(x):
    """A known decoder, the identity: one that were free would turn to the data's axes by itself."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)


TURN = torch.tensor([[1.0, -1.0], [1.0, 1.0]]) / 2**0.5


def correlation_after(objective, seed):
    """Fit to independent factors of sds 1 and .5, turned by 45 degrees; return the codes' total correlation."""
    pyro.set_rng_seed(seed)
    encoder = Encoder()
    data = torch.randn(2_000, 2) * torch.tensor([1.0, 0.5]) @ TURN.T
    batches = [(rows,) for rows in data.split(200)]
    adam = partial(torch.optim.Adam, lr=0.02)
    critic_adam = partial(torch.optim.Adam, lr=0.05) if isinstance(objective, FactorVAE) else None
    for _ in train(objective, noisy, encoder, batches, adam, critic_adam, num_steps=400):
        pass
    weight, scale = encoder.weight.detach(), encoder.log_scale.detach().exp()
    return closed_form(weight @ torch.cov(data.T) @ weight.T + torch.diag(scale.square()))


DISENTANGLING = {
    "FactorVAE": lambda weight: FactorVAE(Quadratic(2), gamma=weight),
    "BetaTCVAE": lambda weight: BetaTCVAE(beta=1 + weight, num_data=2_000),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DISENTANGLING)
def test_training_lowers_the_total_correlation(name):
    """The bound alone left .07 to .09 nat over six seeds, FactorVAE .001 to .06, BetaTCVAE at most .007."""
    plain, found = correlation_after(ELBO(), 0), correlation_after(DISENTANGLING[name](6.0), 0)
    assert 0.05 < plain < 0.13
    assert 0 <= found < plain / 2


@pytest.mark.slow
@pytest.mark.parametrize("name", DISENTANGLING)
def test_mutant_training_without_the_weight(name):
    with pytest.raises(AssertionError):
        assert correlation_after(DISENTANGLING[name](0.0), 0) < correlation_after(ELBO(), 0) / 2
