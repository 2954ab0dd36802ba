"""What only an accelerator can show; skipped, visibly, where there is none."""

from pathlib import Path

import pyro
import pytest
import torch

from pyrogen import ELBO, IWAE, Run, evaluate, fit, load, train
from pyrogen.cli import main
from pyrogen.data import digits
from pyrogen.errors import NonFiniteError
from pyrogen.inference import Autocast
from pyrogen.models import vae

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def adam(parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


@pytest.mark.parametrize("objective", [ELBO(), ELBO(num_particles=3), IWAE(3)], ids=["elbo", "three", "iwae"])
def test_batches_from_the_host_train_programs_on_the_device(objective: torch.nn.Module) -> None:
    data = digits()
    model, guide = (program.to("cuda") for program in vae(data.spec, latent=4, hidden=(32,)))
    batches = data.batches(64, only=["x"])
    steps = list(train(objective, model, guide, batches, adam, num_steps=60, ema=0.9, validate=False))
    assert steps[-1].loss.device.type == "cuda"
    assert steps[-1].loss < steps[0].loss
    assert evaluate(model, guide, data, num_particles=10)["elbo"].value > -200


def test_a_step_that_is_not_finite_is_undone_and_reported() -> None:
    data = digits()
    model, guide = (program.to("cuda") for program in vae(data.spec, latent=4, hidden=(32,)))
    x = data.eval_columns("test")["x"]
    batches = [x[:64]] * 9 + [torch.full_like(x[:64], torch.nan)] + [x[:64]] * 90
    training = train(ELBO(), model, guide, batches, adam, num_steps=100, validate=False)
    with pytest.raises(NonFiniteError):
        list(training)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_the_command_line_resumes_on_the_device(tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    words = ["--latent", "2", "--hidden", "[8]", "--steps", "20", "--device", "cuda", "--out", out]
    assert main(["train", "vae", *words]) == 0
    assert main(["resume", out]) == 0
    assert main(["evaluate", out, "--num-particles", "4", "--device", "cuda"]) == 0


def test_a_run_of_the_device_is_loaded_on_the_host(tmp_path: Path) -> None:
    data = digits()
    model, guide = (program.to("cuda") for program in vae(data.spec, latent=4, hidden=(32,)))
    run = Run.create(tmp_path / "run", {})
    fit(train(ELBO(), model, guide, data.batches(64, only=["x"]), adam, num_steps=5), run)
    pyro.clear_param_store()
    here, _ = load(run, *vae(data.spec, latent=4, hidden=(32,)))
    for ours, theirs in zip(here.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs.cpu())


def programs() -> tuple[torch.nn.Module, torch.nn.Module, torch.Tensor]:
    pyro.set_rng_seed(0)
    data = digits()
    model, guide = (program.to("cuda") for program in vae(data.spec, latent=4, hidden=(32,)))
    return model, guide, data.eval_columns("test")["x"][:64].cuda()


@pytest.mark.parametrize("objective", [ELBO(), IWAE(3), Autocast(ELBO())], ids=["elbo", "iwae", "bfloat16"])
def test_a_compiled_step_is_the_eager_step(objective: torch.nn.Module) -> None:
    """The same noise, from the same generator, through a CUDA graph."""
    losses = []
    for how in (False, True):
        model, guide, x = programs()
        pyro.set_rng_seed(1)
        training = train(objective, model, guide, [x], adam, num_steps=20, compile=how, validate=False)
        losses.append([float(step.loss) for step in training])
    torch.testing.assert_close(torch.tensor(losses[1]), torch.tensor(losses[0]), rtol=1e-2, atol=0.0)


def test_replays_draw_fresh_noise() -> None:
    model, guide, x = programs()
    training = train(ELBO(), model, guide, [x], lambda p: torch.optim.SGD(p, lr=0.0), num_steps=50, compile=True)
    assert len({float(step.loss) for step in training}) == 50


def test_a_compiled_step_does_not_wait_for_the_device() -> None:
    model, guide, x = programs()
    training = train(ELBO(), model, guide, [x], adam, compile=True, validate=False)
    for _ in range(3):
        next(training)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(10):
            next(training)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_compiled_step_that_is_not_finite_is_undone_and_reported() -> None:
    model, guide, x = programs()
    batches = [x] * 9 + [torch.full_like(x, torch.nan)] + [x] * 90
    training = train(ELBO(), model, guide, batches, adam, num_steps=100, compile=True, validate=False)
    with pytest.raises(NonFiniteError):
        list(training)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_a_compiled_run_resumes_bit_for_bit() -> None:
    ends = []
    for stop in (None, 5):
        model, guide, x = programs()
        pyro.set_rng_seed(1)
        training = train(ELBO(), model, guide, [x], adam, num_steps=10, compile=True)
        if stop is not None:
            for _ in range(stop):
                next(training)
            state = training.state_dict()
            model, guide, x = programs()
            training = train(ELBO(), model, guide, [x], adam, num_steps=10, compile=True)
            training.load_state_dict(state)
        ends.append([float(step.loss) for step in training][-5:])
    assert ends[0] == ends[1]
