"""Translation without pairs, against what is known: hand-computed terms, linear translators, permuted modes."""

import random

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyrogen.distributions import Implicit
from pyrogen.inference import CycleGAN, History, cyclegan, train

pytestmark = pytest.mark.usefixtures("double")


def programs(there, back):
    """Programs of two functions."""

    def model(a, b):
        with pyro.plate("data", len(a)):
            pyro.sample("b", Implicit(lambda shape: there(a), batch_shape=a.shape), obs=b)

    def guide(a, b):
        with pyro.plate("data", len(b)):
            pyro.sample("a", Implicit(lambda shape: back(b), batch_shape=b.shape), obs=a)

    return model, guide


class Affine(nn.Module):
    def __init__(self, slope=1.0, shift=0.0):
        super().__init__()
        self.slope, self.shift = nn.Parameter(torch.tensor(slope)), nn.Parameter(torch.tensor(shift))

    def forward(self, x):
        return self.slope * x + self.shift


# The loss, by hand

A, B = torch.tensor([[0.0, 1.0], [4.0, 6.0]], dtype=torch.float64)


def test_terms_by_hand():
    r"""G(a) = 2 a + 3 is [3, 5], F(b) = b - 4 is [0, 2].

    Games: D_b(x) = x - 3 scores G(a) by [0, 2], squares to one 1 and 1: mean 1; D_a(x) = x scores F(b) by [0, 2]: 1.
    Cycles: F(G(a)) = [-1, 1] is [1, 0] from a: mean .5; G(F(b)) = [3, 7] is [1, 1] from b: 1.
    Identity: G(b) = [11, 15] is [7, 9] from b: mean 8; F(a) = [-4, -3] is 4 from a.
    Critics: D_b(b) = [1, 3], squares to one 0 and 4: mean 2; D_b(G(a)) = [0, 2], squares 0 and 4: 2;
    D_a(a) = [0, 1], squares to one: .5; D_a(F(b)) = [0, 2], squares: 2; half of the sum is 3.25.
    """
    model, guide = programs(lambda a: 2 * a + 3, lambda b: b - 4)
    critics = Affine(), Affine(shift=-3.0)

    def loss(**settings):
        return CycleGAN(*critics, (), **settings)(model, guide, A, B).item()

    assert loss(cycle=0.0) == pytest.approx(2.0, abs=1e-12)
    assert loss(cycle=10.0) == pytest.approx(2.0 + 10 * 1.5, abs=1e-12)
    assert loss(cycle=10.0, identity=0.5) == pytest.approx(17.0 + 5 * 12, abs=1e-12)
    assert CycleGAN(*critics, ()).critic_loss(model, guide, A, B).item() == pytest.approx(3.25, abs=1e-12)


@pytest.mark.parametrize("mutant", ["back alone", "swapped"])
def test_mutants_of_terms(mutant, monkeypatch):
    """Cycles that go one way only, or critics of the other domain."""
    if mutant == "swapped":
        forward = CycleGAN._game
        monkeypatch.setattr(
            CycleGAN,
            "_game",
            lambda self, critic, fake: forward(self, self.critic_a if critic is self.critic_b else self.critic_b, fake),
        )
    else:
        monkeypatch.setattr(cyclegan, "_back", lambda guide, a, b: b - 4 if b is B else a)
    with pytest.raises(AssertionError):
        test_terms_by_hand()


@pytest.mark.parametrize("weight", [0.5, 10.0])
def test_a_cycle_is_a_likelihood_of_laplace(weight):
    """Values of a datum have the mean log-density of Laplace(F(G(a)), 1 / weight), but for log(weight / 2)."""
    a, loc = torch.randn(2, 5, 3)
    full = dist.Laplace(loc, 1 / weight).to_event(1).log_prob(a) / 3
    torch.testing.assert_close(cyclegan.log_laplace(a, loc, weight), full - torch.tensor(weight / 2).log())
    unlike = dist.Laplace(loc, weight).to_event(1).log_prob(a) / 3  # the mutant: the weight as the scale
    assert not torch.allclose(cyclegan.log_laplace(a, loc, weight), unlike - torch.tensor(1 / (2 * weight)).log())


# A translation that is known


class Quadratic(nn.Module):
    """Scores that see mean and spread, in units of a domain."""

    def __init__(self, loc, scale):
        super().__init__()
        self.loc, self.scale = loc, scale
        self.weights = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        x = (x - self.loc) / self.scale
        return torch.stack([torch.ones_like(x), x, x.square()], -1) @ self.weights


def fitted(slope_back, cycle=0.3, slope=1.0, rounds=600):
    """Translate N(0, 1) to N(1, 2^2) and back by affine functions, by a batch at quantiles.

    The weight is small: along a valley as steep as that of a heavy one, with a kink in it, Adam takes long.
    """
    a = dist.Normal(0.0, 1.0).icdf((torch.arange(32) + 0.5) / 32)
    b = 1 + 2 * a
    there, back = Affine(slope), Affine(slope_back)
    model, guide = programs(there, back)
    learner = CycleGAN(Quadratic(0.0, 1.0), Quadratic(1.0, 2.0), (), cycle=cycle)

    def adam(parameters, lr=0.05):
        return torch.optim.Adam(parameters, lr=lr, betas=(0.0, 0.99))

    def fast(parameters):
        return adam(parameters, 0.1)

    def named(a, b):
        pyro.module("there", there)
        model(a, b)

    def named_back(a, b):
        pyro.module("back", back)
        guide(a, b)

    def decay(optimizer):
        return torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, rounds)

    for _ in train(learner, named, named_back, [(a, b)], adam, fast, num_steps=rounds, scheduler=decay,
                   critic_scheduler=decay, validate=False):  # fmt: skip
        pass
    return [float(p.detach()) for part in (there, back) for p in (part.slope, part.shift)]


def check_translators(found, sign=1):
    """b = 1 + 2 a and a = (b - 1) / 2; or, mirrored, b = 1 - 2 a and a = (1 - b) / 2."""
    assert found == pytest.approx([2 * sign, 1.0, 0.5 * sign, -0.5 * sign], abs=0.05)


def test_the_linear_translator():
    """A normal distribution's, which is known but for its sign; the way back, begun with the wrong sign, follows."""
    check_translators(fitted(slope_back=-0.3))


def test_the_sign_is_not_identified():
    """Begun mirrored, it ends mirrored: normal distributions are symmetric, and no term says which sign is meant."""
    check_translators(fitted(slope_back=0.3, slope=-1.0), sign=-1)


def test_mutant_without_cycles():
    """Each direction matches the other domain, and the two are not inverse to each other."""
    found = fitted(slope_back=-0.3, cycle=0.0)
    with pytest.raises(AssertionError):
        check_translators(found)
    assert found[0] * found[2] < 0


# Which map is learned is not identified

NOISE = torch.tensor([-0.2, -0.1, 0.0, 0.3], dtype=torch.float64)
MODES = torch.cat([NOISE - 1, NOISE + 1])
"""Two modes of the same form, in both domains."""


def swapped(x):
    """Each mode to the other's place."""
    return torch.where(x < 0, x + 2, x - 2)


class Random(nn.Module):
    """A critic that has nothing to do with the data."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, x):
        return self.net(x[:, None])


def losses(there, back, seed, **settings):
    """Return both players' losses and the critics' gradients."""
    learner = CycleGAN(Random(seed), Random(100 + seed), (), history=0, **settings)
    model, guide = programs(there, back)
    of_critics = learner.critic_loss(model, guide, MODES, MODES)
    gradients = torch.autograd.grad(of_critics, list(learner.parameters()))
    return [learner(model, guide, MODES, MODES).detach(), of_critics.detach(), *gradients]


def identical(x):
    return x + 0.0


def check_not_identified(there, back, **settings):
    for seed in range(5):
        torch.testing.assert_close(
            losses(there, back, seed, **settings), losses(identical, identical, seed, **settings)
        )


def test_permuted_modes_have_the_loss_of_the_identity():
    """Whatever the critics: nothing in the game says to which mode a mode belongs, and the cycle is closed."""
    check_not_identified(swapped, swapped)


@pytest.mark.parametrize("back", [swapped, identical])
def test_mutant_one_mode_for_both(back):
    """A translation that drops a mode is told, and so is a way back that is not the way there."""
    for there in (lambda x: torch.where(x < 0, x + 2, x), swapped if back is identical else identical):
        with pytest.raises(AssertionError):
            check_not_identified(there, back)


def test_the_identity_term_tells_them_apart():
    """Where the domains are the same: a mode is moved by 2, at a weight of .5 * 10, in both directions."""
    with pytest.raises(AssertionError):
        check_not_identified(swapped, swapped, identity=0.5)
    permuted, same = (losses(g, g, 0, identity=0.5)[0] for g in (swapped, identical))
    assert float(permuted - same) == pytest.approx(2 * 0.5 * 10 * 2)


# The history


class Pool:
    """The paper's rule, one draw after the other, in lists."""

    def __init__(self, size):
        self.size, self.kept = size, []

    def exchange(self, draws, is_old, places):
        returned = []
        for draw, old, place in zip(draws, is_old, places, strict=True):
            if len(self.kept) < self.size:
                self.kept.append(draw)
                returned.append(draw)
            elif old:
                returned.append(self.kept[place])
                self.kept[place] = draw
            else:
                returned.append(draw)
        return returned


def check_history(kind):
    """The same as in lists, for batches that are smaller and larger than what is kept."""
    chance = random.Random(0)
    for size, batch in ((5, 3), (4, 4), (3, 10), (50, 8), (1, 6)):
        history, pool = kind(size, (2,)), Pool(size)
        for step in range(25):
            draws = torch.arange(2.0 * batch).reshape(batch, 2) + 1000 * step
            is_old = [chance.random() < 0.5 for _ in range(batch)]
            places = [chance.randrange(size) for _ in range(batch)]
            found = history.exchange(draws, torch.tensor(is_old), torch.tensor(places))
            assert found.tolist() == pool.exchange(draws.tolist(), is_old, places)
            assert history.items[: len(pool.kept)].tolist() == pool.kept
            assert int(history.count) == len(pool.kept)


def test_the_history_is_the_papers():
    check_history(History)


class Blind(History):
    """Draws of a batch do not meet what others of it have put there."""

    def exchange(self, draws, is_old, places):
        before = self.items[places].clone()
        is_first = self.count + torch.arange(len(draws)) < self.size
        super().exchange(draws, is_old, places)
        return torch.where((is_old & ~is_first)[:, None], before, draws)


class Impatient(History):
    """Returns kept draws before the buffer is full."""

    def exchange(self, draws, is_old, places):
        super().exchange(draws, is_old, places)
        return torch.where(is_old[:, None], self.items[places], draws)


@pytest.mark.parametrize("kind", [Blind, Impatient])
def test_mutant_histories(kind):
    with pytest.raises(AssertionError):
        check_history(kind)


def test_half_of_the_draws_are_old():
    """Within 4.5 standard errors, and any that is kept is as likely; with none kept, each draw is returned."""
    history = History(20, ())
    latest = torch.arange(10_020.0)
    returned = torch.cat([history(draws) for draws in latest.split([20, *[10] * 1000])])
    assert torch.equal(returned[:20], latest[:20])
    age = (latest - returned)[20:]
    assert abs(float((age > 0).double().mean()) - 0.5) < 4.5 * 0.5 / 10_000**0.5
    # Each draw takes the place of a given one with probability 1 / 2 / 20, so that it stays for 40 on average.
    age = age[age > 0]
    assert abs(float(age.mean() - 40)) < 4.5 * float(age.std()) / len(age) ** 0.5
    draws = torch.randn(5)
    assert torch.equal(History(0, ())(draws), draws)


def test_the_critics_see_the_history():
    """One draw, then a hundred others: the critics' loss remembers the first as often as the buffer does."""
    learner = CycleGAN(nn.Identity(), nn.Identity(), (), history=1)
    zero = torch.zeros(1)
    learner.critic_loss(*programs(lambda a: a, lambda b: b), zero, zero)
    assert learner.history_a.count == learner.history_b.count == 1
    seen = [learner.critic_loss(*programs(lambda a, n=n: a + n, lambda b: b), zero, zero).item() for n in range(1, 101)]
    # half of D_b(b)^2 + D_a(a)^2 to one, which is 1, and of the square of what is shown
    shown = [round((2 * (loss - 1)) ** 0.5) for loss in seen]
    late = sum(s != n for n, s in enumerate(shown, 1))
    assert abs(late - 50) < 4.5 * 5
    assert all(s <= n for n, s in enumerate(shown, 1))
