"""A GPU that is not there: loss, backward and step on a fake device that refuses tensors of the CPU and host reads.

After ``_setup_privateuseone_for_python_backend``, tensors on device ``fakegpu`` have shapes and no values.
"""

import warnings
from collections.abc import Iterator
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from test_conformance import one_of_each
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import pyrogen.data.recorder
from pyrogen.data import Outcome, Replay, Rollouts
from pyrogen.inference import (
    DRAGAN,
    ELBO,
    FGAN,
    GAN,
    IWAE,
    MMD,
    MMDGAN,
    MPO,
    PPO,
    R1,
    SAC,
    VIREL,
    WGAN,
    Annealing,
    BetaTCVAE,
    CycleGAN,
    Drift,
    EnergyDistance,
    FactorVAE,
    ForwardKL,
    Interpolated,
    KLControl,
    MaximumLikelihood,
    NaturalGradient,
    PyroELBO,
    Renyi,
    ReverseKL,
    Sinkhorn,
    SlicedWasserstein,
    SoftQ,
    particle_smoothing,
    posterior_entries,
    train,
)  # fmt: skip
from pyrogen.inference.critics import critic_for
from pyrogen.inference.player import Player
from pyrogen.inference.turns import Turn
from pyrogen.models import (
    CEM,
    MPPI,
    CategoricalPolicy,
    OptimalTrajectories,
    SoftQPolicy,
    StateDependentExploration,
    TanhNormalPolicy,
    UniformBox,
    UniformChoice,
    char_rnn,
    classifier,
    cyclegan,
    dcgan,
    gaussian_mixture,
    generator,
    joint_vae,
    lda,
    miwae,
    ppca,
    prodlda,
    progressive_gan,
    vae,
    wavenet,
)
from pyrogen.nn import MLP, ActionValues, PatchCritic
from pyrogen.parameters import modules_of, program_parameters
from pyrogen.spec import DataSpec

DEVICE = "fakegpu"
_setup_privateuseone_for_python_backend(DEVICE)  # on import: autograd counts devices at the process's first backward
HOST_READ = (DataDependentOutputException, DynamicOutputShapeException)


@pytest.fixture(autouse=True)
def fake_device(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(FakeTensorMode, "avoid_device_init", property(lambda self: True), raising=False)
    with pyro.settings.context(module_local_params=True), pyro.validation_enabled(False):
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield
        pyro.clear_param_store()


def on_device(module):
    """Replace parameters and buffers in place: ``Module.to`` cannot swap fake tensors."""
    for part in module.modules():
        for name, p in part._parameters.items():
            if p is not None:
                part._parameters[name] = nn.Parameter(torch.empty(p.shape, dtype=p.dtype, device=DEVICE))
        for name, b in part._buffers.items():
            if b is not None:
                part._buffers[name] = torch.empty(b.shape, dtype=b.dtype, device=DEVICE)
    return module


def data(*shape):
    return torch.rand(shape, device=DEVICE)


def images(kind, levels=None, **settings):
    def make():
        spec = DataSpec((1, 4, 5), kind, levels=levels)
        with unset_fake_temporarily():  # a flow's masks are computed when it is built
            model, guide = vae(spec, latent=2, hidden=(8,), **settings)
        return on_device(model), on_device(guide), (data(6, 1, 4, 5),)

    return make


def linear():
    model, _ = ppca(DataSpec((4,), "real"), latent=2)
    return on_device(model), model.guide, (data(6, 4),)


def mixture():
    model, _ = gaussian_mixture(DataSpec((2,), "real"), components=3)
    return on_device(model), None, (data(6, 2),)


def classes():
    model, _ = classifier(DataSpec((4,), "real", num_classes=3), hidden=(8,))
    return on_device(model), None, (data(6, 4), torch.zeros(6, dtype=torch.long, device=DEVICE))


def sounds():
    spec = DataSpec((9,), "levels", levels=5, num_classes=3, sample_rate=9)
    model, _ = wavenet(spec, channels=4, layers=2, skip=4, conditional=True)
    return on_device(model), None, (data(6, 9), 6, 9, torch.zeros(6, dtype=torch.long, device=DEVICE))


def windows():
    spec = DataSpec((5,), "levels", levels=3, symbols=("a", "b", "c"))
    model, _ = char_rnn(spec, hidden=4, layers=2)  # of GRU cells, the device's kernel has no fake
    return on_device(model), None, (data(6, 5), 6, None, torch.ones(6, dtype=torch.bool, device=DEVICE))


def pairs():
    spec = DataSpec((1, 4, 5), "binary", num_classes=3)
    model, guide = joint_vae(spec, latent=2, hidden=(8,), label_hidden=(4,))
    labels = torch.zeros(6, dtype=torch.long, device=DEVICE)
    return on_device(model), on_device(guide), (data(6, 1, 4, 5), labels)


def incomplete():
    model, guide = miwae(DataSpec((4,), "real"), latent=2, hidden=(8,), encoder="gaussian")
    return on_device(model), on_device(guide), (data(6, 4),)


def topics(factory, **settings):
    def make():
        model, guide = factory(DataSpec((7,), "counts", num_data=12), topics=3, hidden=(8,), **settings)
        return on_device(model), on_device(guide), (data(6, 7),)

    return make


def functions(discrete=False, leak=False):
    """Global and local latents, ``pyro.param``; with a discrete global, score-function gradients."""

    def model(x):
        noise = pyro.param("noise", lambda: torch.ones((), device=DEVICE), constraint=dist.constraints.positive)
        zero = torch.zeros(6) if leak else x.new_zeros(())
        g = pyro.sample("g", dist.Bernoulli(logits=x.new_zeros(())) if discrete else dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(zero + g, 1.0))
            pyro.sample("x", dist.Normal(z, noise), obs=x)

    def guide(x):
        loc = pyro.param("loc", lambda: torch.zeros((), device=DEVICE))
        pyro.sample("g", dist.Bernoulli(logits=loc) if discrete else dist.Normal(loc, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc * x, 1.0))

    return model, guide, (data(6),)


def target_and_fit():
    def target():
        pyro.sample("z", dist.Normal(torch.zeros((), device=DEVICE), 1.0))

    def fit():
        pyro.sample("z", dist.Normal(pyro.param("loc", lambda: torch.zeros((), device=DEVICE)), 1.0))

    return target, fit, ()


OBJECTIVES = {
    "ELBO": ELBO,
    "ELBO of 3": partial(ELBO, 3),
    "ELBO of 3, one by one": partial(ELBO, 3, vectorize_particles=False),
    "ELBO, sampled KL": partial(ELBO, 3, analytic_kl=False),
    "annealed": lambda: ELBO(beta=Annealing(0.0, 1.0, 10)),
    "IWAE": partial(IWAE, 3),
    "Renyi": partial(Renyi, 0.5, 3),
    "ReverseKL": partial(ReverseKL, 3),
}
LATENT = {
    "mlp": images("binary"),
    "convolutional": images("binary", network="convolutional", channels=(3, 4)),
    "flow prior": images("binary", prior="flow"),
    "categorical": images("levels", 4, likelihood="categorical"),
    "discretized-logistic": images("levels", 4),
    "gaussian": images("real"),
    "laplace": images("real", likelihood="laplace"),
    "incomplete": incomplete,
    "ppca": linear,
    "functions": functions,
    "discrete": partial(functions, discrete=True),
}
ROWS = [
    *(
        (objective, program, make)
        for objective in OBJECTIVES
        for program, make in LATENT.items()
        if program != "discrete" or objective in ("ELBO of 3", "ELBO, sampled KL", "IWAE", "Renyi", "ReverseKL")
    ),
    *((objective, "pairs", pairs) for objective in ("ELBO", "ELBO of 3", "IWAE", "BetaTCVAE")),
    *(("BetaTCVAE", program, LATENT[program]) for program in ("mlp", "convolutional", "flow prior", "gaussian")),
    # Draws of Dirichlet and gamma distributions have no form without values: these are what draws none.
    ("ELBO", "lda, map", topics(lda, guide="map")),
    ("ELBO", "prodlda", topics(prodlda)),
    ("NaturalGradient", "lda, mean-field", topics(lda, guide="mean-field")),
    ("ELBO", "mixture", mixture),
    ("IWAE", "mixture", mixture),
    ("MaximumLikelihood", "mixture", mixture),
    ("MaximumLikelihood", "classifier", classes),
    ("MaximumLikelihood", "wavenet", sounds),
    ("MaximumLikelihood", "char-rnn", windows),
    ("ForwardKL", "target and fit", target_and_fit),
    ("ReverseKL", "target and fit", target_and_fit),
]
MADE = OBJECTIVES | {
    "MaximumLikelihood": MaximumLikelihood,
    "NaturalGradient": NaturalGradient,
    "ForwardKL": partial(ForwardKL, 3),
    "BetaTCVAE": partial(BetaTCVAE, num_data=60),
}


def run(objective, model, guide, args, **settings):
    """Two steps without a look from the host: the first makes the optimiser's state, the second uses it."""
    objective = on_device(objective)
    parameters, _ = program_parameters((model, guide), partial(objective, model, guide, *args))
    player = Player(parameters, partial(torch.optim.Adam, lr=0.01, capturable=False, foreach=False), **settings)
    for _ in range(2):
        loss = objective(model, guide, *args)
        norm, finite = player.backward(loss)
        player.step(finite)
        objective.after_step("programs")
        assert loss.device.type == norm.device.type == finite.device.type == DEVICE
    return player


@pytest.mark.parametrize(("objective", "program", "make"), one_of_each(ROWS))
def test_loss_backward_and_gradients_stay_on_the_device(objective, program, make):
    model, guide, args = make()
    learner = on_device(MADE[objective]())
    parameters, loss = program_parameters((model, guide), partial(learner, model, guide, *args))
    assert loss.device.type == DEVICE
    assert {p.device.type for p in parameters.values()} == {DEVICE}
    player = Player(parameters, partial(torch.optim.Adam, lr=0.01))
    for _ in range(2):
        norm, finite = player.backward(learner(model, guide, *args))
        assert norm.device.type == finite.device.type == DEVICE
        player.optimizer.step()
        learner.after_step("programs")


@pytest.mark.parametrize("program", ["mlp", "functions"])
def test_steps_with_the_flag_on_the_device(program):
    run(ELBO(), *LATENT[program](), clip_norm=1.0, ema=0.9)


@pytest.mark.parametrize(("objective", "program", "make"), one_of_each(ROWS))
def test_capturing_reads_no_value_on_the_device(objective, program, make, monkeypatch):
    """A whole step is recorded on the device, optimiser, clipping and average included, and the host waits for none.

    A recording computes constants for real, which this device cannot: they are filled in instead.
    """
    made = torch.tensor
    filled = lambda value, dtype=None, device=None, **kwargs: (  # noqa: E731
        made(value, dtype=dtype, **kwargs) if device is None else torch.full((), value, dtype=dtype, device=device)
    )
    monkeypatch.setattr(torch, "tensor", filled)
    model, guide, args = make()
    learner = on_device(MADE[objective]())
    parameters, _ = program_parameters((model, guide), partial(learner, model, guide, *args))
    player = Player(parameters, partial(torch.optim.Adam, lr=0.01, foreach=False), clip_norm=1.0, ema=0.9)
    healthy = torch.ones((), dtype=torch.bool, device=DEVICE)
    modules = list(modules_of(model, guide).values())
    turn = Turn(learner, model, guide, {"programs": player}, modules, healthy, compiled=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outcome = turn([(args, {})])["programs"]
    assert outcome.loss.device.type == outcome.finite.device.type == DEVICE
    [graph] = turn.graphs.known.values()
    assert graph is not None


IMPLICIT = {
    "GAN": lambda critic: GAN(critic, penalties=[R1(), DRAGAN()]),
    "WGAN": lambda critic: WGAN(critic, clip=0.1),
    "WGAN-GP": lambda critic: WGAN(critic, [Interpolated(), Drift()]),
    **{name: partial(lambda critic, name: FGAN(critic, name), name=name) for name in ("kl", "reverse-kl", "js")},
    **{f"{name} ": partial(lambda critic, name: FGAN(critic, name), name=name)
       for name in ("pearson", "squared-hellinger", "total-variation")},
    "MMDGAN": lambda critic: MMDGAN(critic, penalties=[Interpolated()]),
    "MMD": lambda critic: MMD(),
    "EnergyDistance": lambda critic: EnergyDistance(),
    "SlicedWasserstein": lambda critic: SlicedWasserstein(8),
    "Sinkhorn": lambda critic: Sinkhorn(diameter=20.0),
}  # fmt: skip


def halfway(spec, **settings):
    """A generator that fades in its second stage."""
    model, guide = progressive_gan(spec, channels=(3, 4), phase=2, **settings)
    for _ in range(3):
        model.view.advance()
    return model, guide


NETWORKS = {"mlp": generator, "dcgan": partial(dcgan, channels=(3, 4)), "progressive": halfway}


# Weights of equalised layers are not clipped.
PAIRS = [(name, network) for name in IMPLICIT for network in NETWORKS if (name, network) != ("WGAN", "progressive")]


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize(("name", "network"), PAIRS)
def test_both_players_stay_on_the_device(name, network, labelled):
    """Losses and gradients of generator and critic, penalties and covariates included, without a look by the host."""
    spec = DataSpec((1, 4, 6), "levels", levels=4, num_classes=3)
    model = on_device(NETWORKS[network](spec, latent=2, conditional=labelled)[0])
    learner = on_device(IMPLICIT[name](critic_for(model, labelled, (8,), None, "none")))
    batch = {"x": data(6, 1, 4, 6)} | ({"y": torch.zeros(6, dtype=torch.long, device=DEVICE)} if labelled else {})
    for loss_of, module in ((learner, model), (learner.critic_loss, learner)):
        parameters = list(module.parameters())
        if parameters:
            loss = loss_of(model, None, **batch)
            assert loss.device.type == DEVICE
            loss.backward(inputs=parameters)
            learner.after_step("critic")


@pytest.mark.parametrize("program", ["mlp", "flow prior", "pairs"])
def test_codes_and_their_critic_stay_on_the_device(program):
    model, guide, args = (LATENT | {"pairs": pairs})[program]()
    learner = on_device(FactorVAE(MLP(2, 1, (8,))))
    programs = [*model.parameters(), *guide.parameters()]
    for loss_of, parameters in ((learner, programs), (learner.critic_loss, list(learner.parameters()))):
        loss = loss_of(model, guide, *args)
        assert loss.device.type == learner.monitored()["total_correlation"].device.type == DEVICE
        loss.backward(inputs=parameters)


@pytest.mark.parametrize("network", ["resnet", "mlp"])
def test_translators_and_critics_stay_on_the_device(network):
    """Cycles, identity and histories included: who is exchanged for whom is decided on the device."""
    shape = (1, 8, 6)
    spec = DataSpec(shape, "levels", levels=4)
    made = cyclegan(spec, network=network, channels=(3, 4), blocks=1, hidden=(8,))
    model, guide = map(on_device, made)
    learner = on_device(CycleGAN(PatchCritic(shape, (3, 4)), PatchCritic(shape, (3, 4)), shape, identity=0.5))
    batch = {"a": data(6, *shape), "b": data(6, *shape)}
    programs = [*model.parameters(), *guide.parameters()]
    for loss_of, parameters in ((learner, programs), (learner.critic_loss, list(learner.parameters()))):
        loss = loss_of(model, guide, **batch)
        assert loss.device.type == DEVICE
        loss.backward(inputs=parameters)
        learner.after_step("critic")
    assert learner.history_a.items.device.type == DEVICE


@pytest.mark.parametrize("encoder", ["gaussian", "deterministic", "implicit"])
@pytest.mark.parametrize("name", ["avb", "avb of 3", "aae", "wae", "alpha_gan", "ali", "veegan"])
def test_critics_of_latents_stay_on_the_device(name, encoder):
    """Both players' losses and gradients, moments of adaptive contrast included, without a look by the host."""
    if name.startswith("avb") and encoder == "deterministic":
        pytest.skip("there is no density to learn")
    spec = DataSpec((1, 4, 6), "dequantized", levels=4)
    with unset_fake_temporarily():
        model, guide = vae(spec, latent=2, hidden=(8,), likelihood="laplace", encoder=encoder)
    model, guide, batch = on_device(model), on_device(guide), {"x": data(6, 1, 4, 6)}
    settings = {"avb of 3": {"num_particles": 3}, "veegan": {"distance": "squared"}}.get(name, {})
    entry = getattr(posterior_entries, name.removesuffix(" of 3"))
    learner = on_device(
        entry(model, guide, batch, hidden=(8,), **settings) if name != "wae" else entry(model, guide, batch)
    )
    for loss_of, modules in ((learner, [model, guide]), (learner.critic_loss, [learner])):
        parameters = [p for module in modules for p in module.parameters()]
        if parameters:
            loss = loss_of(model, guide, **batch)
            assert loss.device.type == DEVICE
            loss.backward(inputs=parameters)


@pytest.mark.parametrize("auto", [AutoNormal, AutoMultivariateNormal])
def test_autoguides(auto):
    def model(x):
        z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)

    x, guide = data(6), auto(model, init_loc_fn=lambda site: torch.zeros(2, device=DEVICE))
    _, loss = program_parameters((model, guide), partial(ELBO(), model, guide, x))
    loss.backward()
    assert loss.device.type == DEVICE


def test_mutant_a_tensor_left_on_the_cpu():
    # Pyro raises a site's error again by its type and a message: this one's type needs more than a message.
    with pytest.raises((RuntimeError, TypeError), match="device"):
        run(ELBO(analytic_kl=False), *functions(leak=True))


def test_mutant_a_read_by_the_host():
    class Reads(ELBO):
        def forward(self, *args, **kwargs):
            loss = super().forward(*args, **kwargs)
            return loss if loss.item() < 0 else 2 * loss

    with pytest.raises(HOST_READ):
        run(Reads(), *functions())


def test_pyros_own_elbo_reads_the_host():
    """As its docstring says; should Pyro stop, the docstring has to."""
    with pytest.raises(HOST_READ):
        run(PyroELBO(Trace_ELBO()), *functions())


def test_a_guide_that_enumerates_reads_the_host():
    """Pyro's Dice terms look at values; should they stop, the note about it has to go."""
    model, _, (x,) = functions(discrete=True)

    def guide(x):
        pyro.sample("g", dist.Bernoulli(logits=x.new_zeros(())), infer={"enumerate": "parallel"})
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("loc", lambda: torch.zeros((), device=DEVICE)), 1.0))

    with pytest.raises(HOST_READ):
        run(ELBO(), model, guide, (x,))


def test_the_closed_form_of_a_single_bernoulli_reads_the_host():
    """Torch's own KL assigns by a mask, and a mask without dimensions is read by the host."""
    with pytest.raises(HOST_READ):
        run(ELBO(), *functions(discrete=True))


def test_the_first_batch_is_moved_to_the_programs_device():
    """The rehearsal of the first batch must find it where the programs are, without ``device=``.

    The look at the first loss reads the host, which is allowed: a real device has a value there.
    """
    model, guide, _ = linear()
    training = train(ELBO(), model, guide, [torch.zeros(6, 4)], torch.optim.Adam)
    with pytest.raises(HOST_READ):
        next(training)


def test_recordings_lie_where_the_policy_does(monkeypatch):
    """Whatever the environment returns, also where a fit goes on from a state that was saved on another device."""
    for reads, value in (("_check_finite", None), ("_alike", True)):  # every number, which recording may do
        monkeypatch.setattr(pyrogen.data.recorder, reads, lambda *numbers, value=value: value)

    class OnHost:
        num_environments = 3

        def reset(self):
            return torch.rand(3, 4)

        def step(self, action):
            ends = torch.zeros(3, dtype=torch.bool)
            return Outcome(torch.rand(3), self.reset(), ends, ends, self.reset())

        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            pass

    rollouts = Rollouts(OnHost(), on_device(CategoricalPolicy(MLP(4, 2, (8,)))), 2, uses=2)
    first = next(iter(rollouts))
    state = rollouts.state_dict()
    state["recording"] = {name: torch.empty(column.shape, dtype=column.dtype) for name, column in first.items()}
    rollouts.load_state_dict(state)
    again = iter(rollouts)
    for recording in (first, next(again), next(again)):
        assert {column.device.type for column in recording.values()} == {DEVICE}
    replay = Replay(OnHost(), rollouts.actor.policy, 30, 8, num_steps=2, warmup=6, explore=UniformChoice(2))
    batch = next(iter(replay))
    replay.load_state_dict(replay.state_dict())
    for columns in (batch, replay.columns, next(iter(replay))):
        assert {column.device.type for column in columns.values()} == {DEVICE}


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("with_critic", [False, True])
@pytest.mark.parametrize("make", [KLControl, partial(PPO, normalize=True)])
def test_control_stays_on_the_device(bounded, with_critic, make):
    """Neither recordings nor their returns are looked at, and no prior is made on the host."""
    flags = torch.zeros(5, 3, dtype=torch.bool, device=DEVICE)
    action = data(5, 3, 2) if bounded else torch.zeros(5, 3, dtype=torch.long, device=DEVICE)
    recording = {"observation": data(5, 3, 4), "next_observation": data(5, 3, 4), "reward": data(5, 3)}
    recording |= {"action": action, "terminated": flags, "truncated": flags, "log_prob": data(5, 3)}
    policy = on_device((TanhNormalPolicy if bounded else CategoricalPolicy)(MLP(4, 4 if bounded else 2, (8,))))
    model = OptimalTrajectories(UniformBox(2) if bounded else UniformChoice(2), temperature=0.1)
    objective = on_device(make(MLP(4, 1, (8,)) if with_critic else None))
    parameters, _ = program_parameters((model, policy), partial(objective, model, policy, **recording))
    player = Player(parameters, partial(torch.optim.Adam, lr=0.01))
    norm, finite = player.backward(objective(model, policy, **recording))
    assert norm.device.type == finite.device.type == DEVICE
    player.optimizer.step()
    if with_critic:
        assert objective.critic_loss(model, policy, **recording).device.type == DEVICE


def replayed_choices():
    policy = CategoricalPolicy(MLP(4, 2, (8,)))
    return SAC(ActionValues((4,), num_actions=2, hidden=(8,)), target_divergence=0.3), UniformChoice(2), policy


def replayed_box(smooth=False):
    policy = TanhNormalPolicy(MLP(4, 4, (8,)))
    if smooth:
        policy = StateDependentExploration(MLP(4, 8, (8,)), 8, 2)
    return SAC(ActionValues((4,), num_action_dims=2, hidden=(8,)), target_divergence=2.0), UniformBox(2), policy


def replayed_values():
    policy = SoftQPolicy(UniformChoice(2), MLP(4, 2, (8,)))
    return SoftQ(policy.network), policy.prior, policy


def replayed_by_mpo(programs):
    objective, prior, policy = programs()
    return MPO(objective.critic, policy), prior, policy


def replayed_by_virel(programs):
    objective, *rest = programs()
    return VIREL(objective.critic), *rest


REPLAYED = [
    replayed_choices, replayed_box, partial(replayed_box, smooth=True), replayed_values,
    partial(replayed_by_mpo, replayed_choices), partial(replayed_by_mpo, replayed_box),
    partial(replayed_by_virel, replayed_choices), partial(replayed_by_virel, replayed_box),
]  # fmt: skip


@pytest.mark.parametrize("make", REPLAYED)
def test_replayed_transitions_stay_on_the_device(make):
    """Both players' losses and gradients, and target networks; acting by noise that is kept as well."""
    with unset_fake_temporarily():  # a target network is a copy, and what has no values cannot be copied
        made = make()
    objective, prior, policy = map(on_device, made)
    flags, bounded = torch.zeros(1, 6, dtype=torch.bool, device=DEVICE), isinstance(prior, UniformBox)
    action = data(1, 6, 2) if bounded else torch.zeros(1, 6, dtype=torch.long, device=DEVICE)
    columns = {"observation": data(1, 6, 4), "next_observation": data(1, 6, 4), "reward": data(1, 6)}
    columns |= {"action": action, "terminated": flags, "truncated": flags}
    model = OptimalTrajectories(prior, temperature=0.1)
    losses = [(objective, policy)]
    if not isinstance(objective, SoftQ):
        losses.append((objective.critic_loss, objective.critic))
    for loss_of, module in losses:
        loss = loss_of(model, policy, **columns)
        assert loss.device.type == DEVICE
        loss.backward(inputs=list(module.parameters()))
    objective.after_step("critic")
    objective.after_step("programs")
    assert all(figure.device.type == DEVICE for figure in objective.monitored().values())
    if isinstance(policy, StateDependentExploration):
        assert policy.act(data(1, 4)).device.type == DEVICE


class Learned(nn.Module):
    """A model of the world, as a program that draws."""

    def __init__(self):
        super().__init__()
        self.network = MLP(6, 4, (8,))

    def forward(self, observation, action):
        mean = self.network(torch.cat([observation, action], -1))
        return pyro.sample("next_observation", dist.Normal(mean, 1.0).to_event(1)), -mean.square().sum(-1)


@pytest.mark.parametrize("method", [MPPI, CEM])
def test_planning_stays_on_the_device(method):
    planner = on_device(method(Learned(), 2, num_environments=3, num_samples=20, horizon=3, num_futures=2))
    action = planner(data(1, 3, 4))
    assert action.shape == (1, 3, 2)
    assert {action.device.type, planner.plan.device.type} == {DEVICE}


@pytest.mark.parametrize("backward", [False, True])
def test_particles_stay_on_the_device(backward):
    found = particle_smoothing(
        UniformBox(2).distribution, on_device(Learned()), data(3, 4), horizon=2, num_particles=10, backward=backward
    )
    assert {column.device.type for column in found} == {DEVICE}
