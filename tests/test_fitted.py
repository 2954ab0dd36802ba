"""What is loaded and measured is what was fitted: the best checkpoint, the average, eval mode, every particle."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyrogen import MaximumLikelihood, Run, evaluate, fit, load, log_weights, train
from pyrogen.cli import main
from pyrogen.data import from_arrays
from pyrogen.errors import ProgramError
from pyrogen.evaluation import accuracy, elbo, likelihood, log_likelihood
from pyrogen.inference import IWAE, Training
from pyrogen.page import evaluation
from pyrogen.parameters import modules_of


def model() -> None:
    torch.rand(())  # training draws noise, too
    pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0), obs=torch.tensor(8.0))


def training(**settings: float) -> Training:
    pyro.clear_param_store()
    sgd = lambda parameters: torch.optim.SGD(parameters, lr=0.5)  # noqa: E731
    return train(MaximumLikelihood(), model, None, None, sgd, num_steps=4, **settings)


def scripted(*values: float) -> tuple[Callable[[], tuple[str, float]], list[float]]:
    """Return a validation that gives the values one after the other, and the parameter's values that it saw."""
    seen: list[float] = []

    def validate() -> tuple[str, float]:
        seen.append(pyro.param("loc").item())
        return "score", values[len(seen) - 1]

    return validate, seen


def fitted(tmp_path: Path, *values: float, **settings: float) -> tuple[Run, list[float]]:
    validate, seen = scripted(*values)
    run = Run.create(tmp_path / "run", {})
    fit(training(**settings), run, validate=validate, evaluate_every=1)
    return run, seen


def loaded(run: Run, step: int | None = None) -> float:
    pyro.clear_param_store()
    load(run, model, step=step)
    return pyro.param("loc").item()


def test_load_takes_the_best_and_not_the_newest(tmp_path: Path) -> None:
    # loc halves its distance to 8 in each step: 4, 6, 7, 7.5.
    run, seen = fitted(tmp_path, 1.0, 3.0, 2.0, 2.0)
    assert seen == [4.0, 6.0, 7.0, 7.5]
    assert loaded(run) == 6.0
    assert loaded(run, step=4) == 7.5


def test_the_average_is_validated_and_loaded(tmp_path: Path) -> None:
    # m <- (m + loc) / 2 from 0: 2, 4, 5.5, 6.5.
    run, seen = fitted(tmp_path, 1.0, 2.0, 3.0, 4.0, ema=0.5)
    assert seen == [2.0, 4.0, 5.5, 6.5]
    assert loaded(run) == 6.5
    assert run.restore().tree["training"]["programs"]["param.loc"] == 7.5


def test_a_score_that_is_not_a_number_is_never_the_best(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="validation score is nan"):
        run, _ = fitted(tmp_path, math.nan, 1.0, 0.5, 0.2)
    assert run.chosen() == 2


def test_patience_outlasts_a_resume(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", {})
    outcome = fit(training(), run, validate=scripted(1.0, 0.5, 0.4)[0], evaluate_every=1, patience=2)
    assert (outcome.reason, outcome.step) == ("patience", 3)
    again = fit(training(), run, validate=scripted(9.0)[0], evaluate_every=1, patience=2, resume=True)
    assert (again.reason, again.step, again.best) == ("patience", 3, 1.0)


def test_validation_has_noise_of_its_own(tmp_path: Path) -> None:
    noise: list[float] = []
    states: list[torch.Tensor] = []

    def validate() -> tuple[str, float]:
        noise.append(torch.rand(()).item())
        return "score", noise[-1]

    steps = training()
    torch.manual_seed(5)
    fit(steps, Run.create(tmp_path / "run", {}), validate=validate, evaluate_every=1)
    states.append(torch.get_rng_state())
    torch.manual_seed(5)
    list(training())
    states.append(torch.get_rng_state())
    assert len(set(noise)) == 1
    assert torch.equal(*states)


class Dropped(nn.Module):
    """p(y | x) with a network that drops half of its inputs in training."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3))

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Categorical(logits=self.net(x)), obs=y)


def test_figures_are_taken_in_eval_mode() -> None:
    program = Dropped()
    batches = [{"x": torch.randn(50, 4), "y": torch.randint(3, (50,))}]
    assert log_likelihood(program, batches) == log_likelihood(program, batches)
    logits = program.net[1](batches[0]["x"])
    exact = dist.Categorical(logits=logits).log_prob(batches[0]["y"]).mean().item()
    assert log_likelihood(program, batches).value == pytest.approx(exact, rel=1e-5)
    assert program.net[0].training


def test_every_chunk_of_particles_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def normal(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    monkeypatch.setattr(likelihood, "ROWS", 6)
    columns = {"x": torch.tensor([0.0, 1.0, 2.0])}
    weights = likelihood._log_weights(normal, guide, columns, 7)
    assert weights.shape == (7, 3)
    assert len(weights[:, 0].unique()) == 7


def test_accuracy_counts_right_labels() -> None:
    def program(x: torch.Tensor, y: torch.Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(logits=x), obs=y)

    x = torch.eye(4)
    assert accuracy(program, [{"x": x, "y": torch.tensor([0, 1, 2, 0])}]).value == 0.75

    def coin(x: torch.Tensor, y: torch.Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Bernoulli(logits=x[:, 0]), obs=y)

    with pytest.raises(ProgramError, match="categorical"):
        accuracy(coin, [{"x": x, "y": torch.tensor([1.0, 0.0, 0.0, 0.0])}])

    def bayesian(x: torch.Tensor, y: torch.Tensor | None = None) -> None:
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(logits=w * x), obs=y)

    with pytest.raises(ProgramError, match="'w' is latent"):
        accuracy(bayesian, [{"x": x, "y": torch.tensor([0, 1, 2, 3])}])


def test_what_is_no_figure_per_datum_is_refused() -> None:
    def nested(x: torch.Tensor) -> None:
        with pyro.plate("value", x.shape[1], dim=-1), pyro.plate("data", len(x), dim=-2):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    def shared(x: torch.Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: torch.Tensor) -> None:
        pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ProgramError, match="12 importance weights for 3 data"):
        log_likelihood(nested, [{"x": torch.zeros(3, 4)}])
    with pytest.raises(ProgramError, match="1 importance weights for 3 data"):
        elbo(shared, guide, [{"x": torch.zeros(3)}])


def test_a_joint_density_has_no_bits_per_dim_of_x() -> None:
    def joint(x: torch.Tensor, y: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(0.5 * torch.ones(4)).to_event(1), obs=x)
            pyro.sample("y", dist.Bernoulli(0.5), obs=y.float())

    def alone(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(0.5 * torch.ones(4)).to_event(1), obs=x.flatten(1))

    rows = {"x": torch.randint(2, (40, 4)).numpy(), "y": torch.arange(40).remainder(2).numpy()}
    data = from_arrays(rows)
    assert set(evaluate(joint, None, data)) == {"log_likelihood"}
    assert evaluate(alone, None, data)["bits_per_dim"].value == pytest.approx(1.0)


def test_figures_do_not_outlive_their_run(tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    words = ["train", "vae", "--latent", "2", "--hidden", "[4]", "--steps", "3", "--out", out, "--device", "cpu"]
    assert main(words) == 0
    assert main(["evaluate", out, "--num-particles", "2"]) == 0
    assert "elbo" in evaluation(Run.open(out)).figures
    assert main([*words, "--overwrite"]) == 0
    assert evaluation(Run.open(out)).figures == {}
    assert main(["evaluate", out, "--num-particles", "2"]) == 0
    path = Path(out) / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"step": 2}))  # as after a resume
    assert evaluation(Run.open(out)).figures == {}


def test_one_particle_of_a_program_without_plates() -> None:
    def scalar() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(0.0))

    def exact() -> None:
        pyro.sample("z", dist.Normal(0.0, 0.5**0.5))

    truth = dist.Normal(0.0, 2**0.5).log_prob(torch.tensor(0.0))
    assert torch.allclose(log_weights(scalar, exact), truth.reshape(1, 1))
    assert torch.allclose(IWAE(1)(scalar, exact), -truth)


def test_modules_of_equal_names_and_in_hiding_are_all_found() -> None:
    def made(net: nn.Module) -> Callable[[], nn.Module]:
        return lambda: net

    first, second, listed, keyed = (nn.Linear(1, 1) for _ in range(4))
    held = {"inside": [listed], "deeper": {"net": keyed}}

    def program() -> list[nn.Module]:
        return [part for part in [held] for _ in part]

    found = modules_of(made(first), made(second), program)
    assert {id(module) for module in found.values()} == {id(net) for net in (first, second, listed, keyed)}
    assert len(found) == 4
