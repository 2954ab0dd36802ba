"""What only an accelerator can show; skipped, visibly, where there is none."""

from pathlib import Path

import pyro
import pytest
import torch

from pyrogen import ELBO, IWAE, Run, evaluate, fit, load, train
from pyrogen.cli import main
from pyrogen.data import digits
from pyrogen.errors import NonFiniteError
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
