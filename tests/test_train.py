"""The loop: who may touch what, what is drawn when, and how a fit resumes."""

import copy
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.data import DataLoader, TensorDataset

from pyrogen.errors import NonFiniteError, ProgramError
from pyrogen.inference import ELBO, Annealing, MaximumLikelihood, Objective, train
from pyrogen.inference.player import Player
from pyrogen.models import PPCA


def adam(p):
    return torch.optim.Adam(p, lr=0.01)


# A small adversarial objective


class Generator(PyroModule):
    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4) if norm else nn.Identity(), nn.Linear(4, 2))

    def forward(self, size):
        with pyro.plate("data", size):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        return self.net(z)


class Adversary(Objective):
    """A Wasserstein critic of a program's return value."""

    def __init__(self, norm: str = "batch") -> None:
        super().__init__()
        first = nn.Linear(2, 4)
        layers = {"batch": [first, nn.BatchNorm1d(4)], "spectral": [spectral_norm(first)], "none": [first]}[norm]
        self.net = nn.Sequential(*layers, nn.Tanh(), nn.Linear(4, 1))
        self.after = []

    def forward(self, model, guide, x):
        return -self.net(model(len(x))).mean()

    def critic_loss(self, model, guide, x):
        return self.net(model(len(x)).detach()).mean() - self.net(x).mean()

    def after_step(self, player):
        self.after.append(player)


def tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def optimizer_tensors(player: Player) -> dict[str, Tensor]:
    state = player.optimizer.state_dict()["state"]
    return {f"{i}.{name}": value.clone() for i, values in state.items() for name, value in values.items()}


def adversarial(norm="batch", generator_norm=True, **settings):
    objective, model = Adversary(norm), Generator(generator_norm)
    batches = [torch.randn(8, 2) for _ in range(50)]
    return objective, model, train(objective, model, None, batches, adam, adam, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("compile", [False, "capture"])
@pytest.mark.parametrize("norm", ["batch", "spectral", "none"])
def test_either_players_step_leaves_the_other_as_it_was(norm, compile, monkeypatch):
    monkeypatch.setattr(Adversary, "after_step", lambda self, player: None)  # that of the class counts on the host
    objective, model, training = adversarial(norm, compile=compile)
    next(training)

    for kind, own, other in (("critic", objective, model), ("programs", model, objective)):
        other_player = training.programs if kind == "critic" else training.critic
        before, own_before, state = tensors(other), tensors(own), optimizer_tensors(other_player)
        training._turn({kind: training.feed.draw(None)})
        assert same(tensors(other), before)
        assert same(optimizer_tensors(other_player), state)
        assert not same(tensors(own), own_before)


def test_the_other_player_runs_in_training_mode():
    _, model, training = adversarial("none")
    modes = []
    model.net[1].register_forward_pre_hook(lambda module, args: modes.append(module.training))
    next(training)
    assert modes
    assert all(modes)


class Counted:
    """Batches, and how many have been handed out."""

    def __init__(self, batches):
        self.batches, self.drawn = batches, 0

    def __iter__(self):
        for batch in self.batches:
            self.drawn += 1
            yield batch


@pytest.mark.parametrize(("steps", "simultaneous"), [((1, 1), False), ((2, 3), False), ((1, 5), False), ((1, 1), True)])
def test_every_step_draws_its_own_batch_and_nothing_ahead(steps, simultaneous):
    batches = Counted([torch.randn(8, 2) for _ in range(100)])
    objective, model = Adversary("none"), Generator(norm=False)
    training = train(objective, model, None, batches, adam, adam, steps=steps, simultaneous=simultaneous)
    for rounds in range(1, 5):
        next(training)
        assert batches.drawn == rounds * sum(steps)
        assert len(objective.after) == rounds * sum(steps)
    expected = ["critic"] * steps[1] + ["programs"] * steps[0]
    assert objective.after == expected * 4


class Bilinear(Objective):
    """min over a, max over b of a b: from (1, 1), one simultaneous gradient step of rate r gives (1 - r, 1 + r)."""

    def __init__(self):
        super().__init__()
        self.b = nn.Parameter(torch.tensor(1.0))

    def forward(self, model, guide):
        return model() * self.b

    def critic_loss(self, model, guide):
        return -model() * self.b


@pytest.mark.parametrize(("simultaneous", "truth"), [(True, (0.9, 1.1)), (False, (0.89, 1.1))])
def test_simultaneous_gradients_are_taken_at_the_same_point(simultaneous, truth):
    """In turn, the critic goes first: b = 1.1, then a = 1 - .1 * 1.1 = .89."""
    objective = Bilinear()

    def model():
        return pyro.param("a", torch.tensor(1.0))

    def sgd(p):
        return torch.optim.SGD(p, lr=0.1)

    next(train(objective, model, None, None, sgd, sgd, simultaneous=simultaneous))
    assert (pyro.param("a").item(), objective.b.item()) == pytest.approx(truth)


# One player


def normal(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0), obs=x)


def likelihood(batches=None, **settings):
    batches = batches or [torch.tensor([1.0, 2.0])]

    def sgd(p):
        return torch.optim.SGD(p, lr=0.1)

    return train(MaximumLikelihood(), normal, None, batches, sgd, **settings)


def test_num_steps_and_epochs():
    three = [torch.randn(2) for _ in range(3)]
    assert [s.index for s in likelihood(num_steps=4)] == [1, 2, 3, 4]
    assert [s.epoch for s in likelihood(three, epochs=2)] == [0, 0, 0, 1, 1, 1]
    assert [s.index for s in likelihood(three, epochs=2, num_steps=4)] == [1, 2, 3, 4]
    assert list(likelihood(num_steps=0)) == []


def test_epochs_do_not_begin_a_pass_that_is_not_used():
    batches = Counted([torch.randn(2)] * 3)
    assert len(list(train(MaximumLikelihood(), normal, None, batches, adam, epochs=2))) == 6
    assert batches.drawn == 6


def test_scheduler_advances_with_each_step():
    """Rates .1, .05, .025 on the loss (loc - 1)^2 / 2: the distance to 1 shrinks by .9, .95, .975."""
    half = [torch.tensor([1.0])]
    for _ in likelihood(half, num_steps=3, scheduler=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.5)):
        pass
    assert 1 - pyro.param("loc").item() == pytest.approx(0.9 * 0.95 * 0.975)


def test_clip_norm():
    """The gradient at 0 for x = 100 is -100; clipped to 2 and with rate .1 it moves loc to .2."""
    (step,) = likelihood([torch.tensor([100.0])], num_steps=1, clip_norm=2.0)
    assert pyro.param("loc").item() == pytest.approx(0.2, rel=1e-4)
    assert step.grad_norm.item() == pytest.approx(100.0)


def test_moving_average():
    """average_t = d average_{t-1} + (1 - d) loc_t from loc_0 = 0, with loc_t = 1 - .9^t."""
    training = likelihood([torch.tensor([1.0])], num_steps=4, ema=0.7)
    average = 0.0
    for t, _ in enumerate(training, 1):
        average = 0.7 * average + 0.3 * (1 - 0.9**t)
    with training.averaged():
        assert pyro.param("loc").item() == pytest.approx(average)
    assert pyro.param("loc").item() == pytest.approx(1 - 0.9**4)


def test_optimizer_as_an_object():
    model = PPCA(3, 1)
    training = train(ELBO(), model, model.guide, [torch.randn(5, 3)], adam(model.parameters()), num_steps=2)
    before = tensors(model)
    assert len(list(training)) == 2
    assert not same(tensors(model), before)


def test_frozen_parameters_stay():
    """Pyro's store makes what it is given require gradients again: freezing must mean freezing all the same."""
    model = PPCA(3, 1)
    model.W.requires_grad_(False)
    before = model.W.detach().clone()
    for _ in train(ELBO(), model, model.guide, [torch.randn(5, 3)], adam, num_steps=2):
        pass
    assert torch.equal(model.W, before)


# Resume


class Encoder(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.2), nn.Linear(4, 2))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            loc, log_scale = self.net(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def decay(optimizer):
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)


def functional_fit():
    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        loc = pyro.param("loc", lambda: torch.randn(()))
        pyro.sample("z", dist.Normal(loc, pyro.param("scale", torch.tensor(0.5), dist.constraints.positive)))

    batches = [torch.randn(4, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    return train(ELBO(beta=Annealing(0.0, 1.0, 9)), model, guide, batches, adam, scheduler=decay, ema=0.9)


def module_fit(**loader):
    data = TensorDataset(torch.randn(20, 3, generator=torch.Generator().manual_seed(1)))
    model, guide = PPCA(3, 1), Encoder()
    return train(ELBO(2), model, guide, DataLoader(data, batch_size=4, shuffle=True, **loader), adam, clip_norm=1.0)


def autoguide_fit():
    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", 8, subsample_size=4) as i:
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x[i])

    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(1))
    return train(ELBO(3), model, AutoNormal(model), [x], adam)


def two_player_fit():
    data = TensorDataset(torch.randn(40, 2, generator=torch.Generator().manual_seed(1)))
    objective, model = Adversary("spectral"), Generator()
    return train(objective, model, None, DataLoader(data, 8, shuffle=True), adam, adam, steps=(1, 2))


def two_players_normed():
    data = TensorDataset(torch.randn(40, 2, generator=torch.Generator().manual_seed(1)))
    return train(Adversary("batch"), Generator(), None, DataLoader(data, 8, shuffle=True), adam, adam)


def own_generator():
    """A loader that shuffles by a generator of its own: its state is part of the fit's."""
    return module_fit(generator=torch.Generator().manual_seed(5))


FITS = [functional_fit, module_fit, autoguide_fit, two_player_fit, two_players_normed, own_generator]


def new(make, seed):
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    return make()


@pytest.mark.parametrize("make", FITS)
def test_bit_exact_resume(make):
    """Saved at three steps, each run goes on in new objects just as the uninterrupted one did."""
    stops = sorted(torch.randperm(14)[:3].add(1).tolist())
    whole, saved, losses = new(make, 3), {}, []
    for step in whole:
        losses.append(step.loss.item())
        if step.index in stops:
            saved[step.index] = copy.deepcopy(whole.state_dict())
        if step.index == 17:
            break
    final = copy.deepcopy(whole.state_dict())
    for stop in stops:
        resumed = new(make, 99)
        resumed.load_state_dict(copy.deepcopy(saved[stop]))
        again = []
        while not again or len(again) + stop < 17:
            again.append(next(resumed).loss.item())
        assert again == losses[stop:]
        state = resumed.state_dict()
        assert state["index"] == 17
        assert same(state["programs"], final["programs"])
        assert same(state["objective"], final["objective"])
        assert repr(state["player"]) == repr(final["player"])
        assert torch.equal(state["rng"]["torch"], final["rng"]["torch"])


@pytest.mark.parametrize("dropped", ["player", "rng"])
def test_mutant_resume_without(dropped):
    """The comparison sees a checkpoint that forgot the optimiser, or the random numbers."""
    whole = new(module_fit, 3)
    losses = [next(whole).loss.item() for _ in range(4)]
    saved = copy.deepcopy(whole.state_dict())
    losses = [next(whole).loss.item() for _ in range(6)]
    resumed = new(module_fit, 99)
    first = next(resumed)
    assert first.index == 1
    resumed.load_state_dict(saved | {dropped: copy.deepcopy(resumed.state_dict())[dropped]})
    assert [next(resumed).loss.item() for _ in range(6)] != losses


def test_a_state_in_memory_is_a_snapshot():
    """Going back to a state twice gives the same steps twice, without the caller copying it."""
    training = new(functional_fit, 3)
    for _ in range(3):
        next(training)
    state = training.state_dict()
    ahead = [next(training).loss.item() for _ in range(4)]
    for _ in range(2):
        training.load_state_dict(state)
        assert [next(training).loss.item() for _ in range(4)] == ahead


def test_state_before_the_first_step():
    with pytest.raises(ProgramError, match="before the first step"):
        functional_fit().state_dict()


def test_state_of_other_programs_is_refused_with_every_difference():
    saved = copy.deepcopy(_after(new(functional_fit, 1), 2).state_dict())
    other = _after(new(autoguide_fit, 1), 1)
    with pytest.raises(ProgramError, match=r"param\.loc"):
        other.load_state_dict(saved)


def _after(training, steps):
    for _ in range(steps):
        next(training)
    return training


# Steps that are not finite


class Jump(PyroModule):
    """A model whose log-probability overflows for large data."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(2))
        self.norm = nn.BatchNorm1d(2, affine=False)

    def forward(self, x):
        self.norm(x)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(self.first, 1.0).to_event(1), obs=x)


GOOD, BAD = torch.ones(4, 2), torch.full((4, 2), 1e30)


def test_a_non_finite_step_stops_and_names_step_and_site():
    model = Jump()
    training = train(MaximumLikelihood(), model, None, [GOOD, GOOD, BAD], adam, ema=0.9)
    _after(training, 2)
    before, state = model.first.detach().clone(), optimizer_tensors(training.programs)
    with pytest.raises(NonFiniteError, match=r"(?s)step 3.*model  x .*not finite"):
        next(training)
    assert torch.equal(model.first, before)
    assert same(optimizer_tensors(training.programs), state)


def test_a_non_finite_step_changes_no_buffer():
    """ "A step whose loss or gradient is not finite changes nothing": batch statistics of bad data stay out, too."""
    model = Jump()
    training = train(MaximumLikelihood(), model, None, [GOOD, BAD], adam)
    next(training)
    before = tensors(model.norm)
    with pytest.raises(NonFiniteError):
        next(training)
    assert same(tensors(model.norm), before)


def test_non_finite_parameters_are_named():
    """With the optimiser's groups in another order than the programs' parameters."""
    first, second = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(0.0))
    player = Player(
        {"first": first, "second": second}, torch.optim.SGD([{"params": [second]}, {"params": [first]}], 0.1)
    )
    player.backward(first * 2 + second.sqrt())  # d sqrt at 0 is infinite
    assert player.non_finite() == ["second"]


@pytest.mark.parametrize("taken", [0, 2])
def test_a_step_that_is_undone_on_the_device(taken):
    """The path without a host read: with ``finite`` false, parameters and optimiser state stay bitwise."""
    p = nn.Parameter(torch.ones(3))
    player = Player({"p": p}, adam, scheduler=decay, ema=0.5)
    for _ in range(taken):
        player.backward((p**2).sum())
        player.step(torch.tensor(True))
    before, state, average = p.detach().clone(), optimizer_tensors(player), player.average[0].clone()
    player.backward((p * math.inf).sum())
    player.step(torch.tensor(False))
    assert torch.equal(p, before)
    assert torch.equal(player.average[0], average)
    after = optimizer_tensors(player)
    assert same({name: value for name, value in after.items() if name in state}, state)
    assert all(not value.any() for name, value in after.items() if name not in state)  # as made, with no step counted


def test_a_step_that_is_taken_on_the_device_is_the_step():
    results = []
    for finite in (None, torch.tensor(True)):
        p = nn.Parameter(torch.ones(3))
        player = Player({"p": p}, adam)
        for _ in range(3):
            player.backward((p**3).sum())
            player.step(finite)
        results.append(p.detach())
    assert torch.equal(*results)
