"""Values and gradients against Pyro's own at a shared seed, and the conditions under which KL may be closed-form."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions.testing.fakes import NonreparameterizedNormal
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from torch.distributions import kl_divergence

import pyrogen.inference.elbo
from pyrogen.inference import ELBO, Annealing, Renyi, train
from pyrogen.traces import Term

pytestmark = pytest.mark.usefixtures("double")

X = torch.linspace(-1.0, 2.0, 6, dtype=torch.float64)
MASK = torch.tensor([True, False, True, True, False, True])
HANDLERS = {
    "neither": lambda i: poutine.scale(scale=1.0),
    "scaled": lambda i: poutine.scale(scale=0.3),
    "masked": lambda i: poutine.mask(mask=MASK[i]),
}
KINDS = {
    "reparameterised": (dist.Normal, dist.Normal),
    "score function": (NonreparameterizedNormal, NonreparameterizedNormal),
    "mixed": (dist.Normal, NonreparameterizedNormal),
    "mixed the other way": (NonreparameterizedNormal, dist.Normal),
}


def programs(kind="reparameterised", subsampled=False, handler="neither"):
    """A global and a local latent; each has parameters in model and guide."""
    Global, Local = KINDS[kind]
    size = 4 if subsampled else None

    def model(x):
        theta = pyro.param("theta", torch.tensor(0.3))
        g = pyro.sample("g", dist.Normal(theta, 1.5))
        with pyro.plate("data", 6, subsample_size=size) as i, HANDLERS[handler](i):
            z = pyro.sample("z", dist.Normal(g, 1.0))
            pyro.sample("x", dist.Normal(z * theta, 0.7), obs=x[i])

    def guide(x):
        loc, scale = pyro.param("loc", torch.tensor(0.4)), pyro.param("scale", torch.tensor(0.8))
        w = pyro.param("w", torch.tensor([0.5, 0.2]))
        g = pyro.sample("g", Global(loc, scale))
        with pyro.plate("data", 6, subsample_size=size) as i, HANDLERS[handler](i):
            pyro.sample("z", Local(w[0] * x[i] + w[1] * g, scale))

    return model, guide


def value_and_gradients(loss, seed=7):
    """Call at a seed; return the value and each parameter's gradient by name."""
    pyro.set_rng_seed(seed)
    with poutine.trace(param_only=True) as capture:
        value = loss()
    parameters = {name: site["value"].unconstrained() for name, site in capture.trace.nodes.items()}
    if isinstance(value, torch.Tensor) and value.requires_grad:
        value.backward()
    gradients = {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}
    for p in parameters.values():
        p.grad = None
    return float(value.detach()) if isinstance(value, torch.Tensor) else value, gradients


def check_same(ours, pyros):
    (value, gradients), (their_value, their_gradients) = value_and_gradients(ours), value_and_gradients(pyros)
    assert value == pytest.approx(their_value, abs=1e-10, rel=1e-10)
    assert gradients.keys() == their_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, their_gradients[name], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("num_particles", [1, 3])
@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("subsampled", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_like_trace_elbo(kind, subsampled, handler, num_particles):
    model, guide = programs(kind, subsampled, handler)
    ours = ELBO(num_particles, analytic_kl=False, leave_one_out=False)
    pyros = Trace_ELBO(num_particles, vectorize_particles=True, max_plate_nesting=1)
    check_same(lambda: ours(model, guide, X), lambda: pyros.loss_and_grads(model, guide, X))


@pytest.mark.parametrize("kind", KINDS)
def test_like_trace_elbo_one_particle_after_the_other(kind):
    model, guide = programs(kind)
    ours = ELBO(3, vectorize_particles=False, analytic_kl=False)
    check_same(lambda: ours(model, guide, X), lambda: Trace_ELBO(3).loss_and_grads(model, guide, X))


def test_mutant_scale_forgotten_in_a_score_term():
    """The comparison sees a score function that is scaled with its site: Pyro leaves it unscaled, returns carry it."""
    model, guide = programs("score function", handler="scaled")

    class Scaled(ELBO):
        def _score_terms(self, traces, plus, minus, divergences):
            for site in traces.guide.nodes.values():
                if site["type"] == "sample":
                    parts = site["score_parts"]
                    site["score_parts"] = parts._replace(score_function=parts.score_function * site["scale"])
            return super()._score_terms(traces, plus, minus, divergences)

    ours = Scaled(analytic_kl=False)
    with pytest.raises(AssertionError):
        check_same(lambda: ours(model, guide, X), lambda: Trace_ELBO().loss_and_grads(model, guide, X))


@pytest.mark.parametrize("num_particles", [1, 3])
@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("subsampled", [False, True])
def test_like_trace_mean_field_elbo(subsampled, handler, num_particles):
    mask = MASK[:4] if subsampled else MASK  # one tensor for both programs, so that they are seen to agree
    context = poutine.mask(mask=mask) if handler == "masked" else HANDLERS[handler](None)
    size = 4 if subsampled else None

    def model(x):
        g = pyro.sample("g", dist.Normal(pyro.param("theta", torch.tensor(0.3)), 1.5))
        with pyro.plate("data", 6, subsample_size=size) as i, context:
            z = pyro.sample("z", dist.Normal(g, 1.0))
            pyro.sample("x", dist.Normal(z, 0.7), obs=x[i])

    def guide(x):
        loc, scale = pyro.param("loc", torch.tensor(0.4)), pyro.param("scale", torch.tensor(0.8))
        g = pyro.sample("g", dist.Normal(loc, scale))
        with pyro.plate("data", 6, subsample_size=size) as i, context:
            pyro.sample("z", dist.Normal(loc * x[i] + g, scale))

    ours = ELBO(num_particles)
    pyros = TraceMeanField_ELBO(num_particles, vectorize_particles=True, max_plate_nesting=1)
    check_same(lambda: ours(model, guide, X), lambda: pyros.loss_and_grads(model, guide, X))


def enumerated(where):
    infer = {"enumerate": "parallel"}

    def model(x):
        theta = pyro.param("theta", torch.tensor([0.2, 0.5, 0.3]), constraint=dist.constraints.simplex)
        g = pyro.sample("g", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 6, subsample_size=4) as i:
            k = pyro.sample("k", dist.Categorical(theta), infer=infer if where == "model" else {})
            pyro.sample("x", dist.Normal(g + k, 1.0), obs=x[i])

    def guide(x):
        loc, logits = pyro.param("loc", torch.tensor(0.4)), pyro.param("logits", torch.zeros(6, 3))
        g = pyro.sample("g", NonreparameterizedNormal(loc, 0.8) if where == "score" else dist.Normal(loc, 0.8))
        if where != "model":
            with pyro.plate("data", 6, subsample_size=4) as i:
                pyro.sample("k", dist.Categorical(logits=logits[i] + g[..., None]), infer=infer)

    return model, guide


@pytest.mark.parametrize("num_particles", [1, 3])
@pytest.mark.parametrize("where", ["model", "guide", "score"])
def test_like_trace_enum_elbo(where, num_particles):
    model, guide = enumerated(where)
    ours = ELBO(num_particles, leave_one_out=False, analytic_kl=False)
    pyros = TraceEnum_ELBO(num_particles, vectorize_particles=True, max_plate_nesting=1)
    check_same(lambda: ours(model, guide, X), lambda: pyros.loss_and_grads(model, guide, X))


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.5, 2.0])
@pytest.mark.parametrize("num_particles", [2, 5])
def test_like_renyi_elbo_on_a_single_datum(alpha, num_particles):
    def model(x):
        z = pyro.sample("z", dist.Normal(pyro.param("theta", torch.tensor(0.3)), 1.0))
        pyro.sample("x", dist.Normal(z, 0.7), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.4)), pyro.param("scale", torch.tensor(0.8))))

    pyros = RenyiELBO(alpha, num_particles, vectorize_particles=True, max_plate_nesting=0)
    ours = Renyi(alpha, num_particles)
    check_same(lambda: ours(model, guide, X[0]), lambda: pyros.loss_and_grads(model, guide, X[0]))


# When the closed form of a divergence may stand for draws


def delta_programs():
    """q(z) = N(.5, .8) written as a ``Delta`` that carries its density, as a flow or a ratio estimator does."""

    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def plain(x):
        pyro.sample("z", dist.Normal(torch.full((2,), 0.5), 0.8).to_event(1))

    def delta(x):
        q = dist.Normal(torch.full((2,), 0.5), 0.8).to_event(1)
        z = q.rsample()
        pyro.sample("z", dist.Delta(z, log_density=q.log_prob(z), event_dim=1))

    return model, plain, delta


def check_delta():
    model, plain, delta = delta_programs()
    x = torch.tensor([0.3, -1.0])
    ours = value_and_gradients(lambda: ELBO()(model, delta, x))[0]
    assert ours == pytest.approx(value_and_gradients(lambda: ELBO(analytic_kl=False)(model, plain, x))[0], abs=1e-10)


def test_delta_keeps_its_log_density():
    check_delta()


def test_mutant_delta_taken_for_closed_form(monkeypatch):
    monkeypatch.setattr(pyrogen.inference.elbo, "is_point", lambda fn: False)
    with pytest.raises(AssertionError):
        check_delta()


def swapped_programs():
    """The guide draws b before a: given a, the model's b has another divergence than the guide's b has."""

    def model():
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        b = pyro.sample("b", dist.Normal(a, 0.5))
        pyro.sample("x", dist.Normal(b, 1.0), obs=torch.tensor(0.7))

    def guide():
        b = pyro.sample("b", dist.Normal(0.4, 0.8))
        pyro.sample("a", dist.Normal(0.9 * b, 0.3))

    return model, guide


def check_swapped_order():
    """E_q[a] = .36, var b = .64, var a = .81 * .64 + .09, b - a = .1 b - e, all normal: the ELBO in closed form."""
    entropy = 0.5 * (math.log(2 * math.pi * math.e * 0.64) + math.log(2 * math.pi * math.e * 0.09))
    log_a = -0.5 * (math.log(2 * math.pi) + 0.36**2 + 0.81 * 0.64 + 0.09)
    log_b = -0.5 * (math.log(2 * math.pi * 0.25) + (0.04**2 + 0.01 * 0.64 + 0.09) / 0.25)
    log_x = -0.5 * (math.log(2 * math.pi) + 0.3**2 + 0.64)
    draws = torch.stack([-ELBO(1000)(*swapped_programs()).detach() for _ in range(100)])
    truth = log_a + log_b + log_x + entropy
    assert abs(draws.mean().item() - truth) < 4.5 * draws.std().item() / 10


def test_other_order_of_sites_is_not_closed_form():
    check_swapped_order()


def test_mutant_closed_form_in_any_order(monkeypatch):
    def forced(traces):
        kls = {}
        for name in ("a", "b"):
            q, p = traces.guide.nodes[name], traces.model.nodes[name]
            kls[name] = Term(q["cond_indep_stack"], kl_divergence(q["fn"], p["fn"]))
        return kls

    monkeypatch.setattr(pyrogen.inference.elbo, "analytic_kls", forced)
    with pytest.raises(AssertionError):
        check_swapped_order()


# beta, annealing, and Pyro's own loop


def normal_programs():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 0.8))

    return model, guide


@pytest.mark.parametrize("analytic_kl", [False, True])
@pytest.mark.parametrize("beta", [0.0, 0.25, 4, Annealing(0.25, 0.25, 1)])
def test_beta(beta, analytic_kl):
    r"""E log N(x; z, 1) = -(log 2 pi + (x - .5)^2 + .64) / 2, KL = (.25 + .64 - 1 - 2 log .8) / 2."""
    weight = 0.25 if isinstance(beta, Annealing) else beta
    kl = 0.5 * (0.25 + 0.64 - 1 - 2 * math.log(0.8))
    log_x = -0.5 * (math.log(2 * math.pi) + (X - 0.5) ** 2 + 0.64).sum().item()
    objective = ELBO(2000, beta=beta, analytic_kl=analytic_kl)
    draws = torch.stack([-objective(*normal_programs(), X).detach() for _ in range(50)])
    assert abs(draws.mean().item() - (log_x - weight * 6 * kl)) < 4.5 * draws.std().item() / math.sqrt(50)
    unweighted = log_x - 6 * kl  # mutant: beta ignored
    assert abs(draws.mean().item() - unweighted) > 4.5 * draws.std().item() / math.sqrt(50)


def test_annealing_does_not_switch_the_closed_form_off():
    """A weight that is a tensor is the same weight at both programs' sites."""
    values = [
        value_and_gradients(lambda b=b: ELBO(beta=b)(*normal_programs(), X))[0] for b in (0.5, Annealing(0.5, 0.5, 1))
    ]
    assert values[0] == pytest.approx(values[1])


def test_annealing_advances_with_each_step_of_training():
    objective = ELBO(beta=Annealing(0.0, 1.0, steps=4))
    weights = []
    for _ in train(objective, *normal_programs(), [X], lambda p: torch.optim.SGD(p, lr=0.0), num_steps=6):
        weights.append(objective.beta().item())
    assert weights == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])


def test_under_pyros_svi():
    model, guide = normal_programs()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), loss=ELBO(5))
    assert all(math.isfinite(svi.step(X)) for _ in range(200))
    assert pyro.param("loc").item() == pytest.approx(X.mean().item() / 2, abs=0.05)
