"""What only an accelerator can show; skipped, visibly, where there is none."""

import warnings
from pathlib import Path

import numpy as np
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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # says that the mode is a prototype
            torch.cuda.set_sync_debug_mode("error")
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


SMALL = {
    "vae": "--latent 2 --hidden [8]",
    "classifier": "--hidden [8]",
    "generator": "--latent 2 --hidden [8] --objective gan",
    "dcgan": "--latent 2 --objective gan",
    "joint-vae": "--latent 2",
    "fvsbn": "--pixels static-binary",
    "nade": "--hidden 8 --pixels static-binary",
    "made": "--hidden [16] --pixels static-binary",
    "pixelcnn": "--channels 4 --layers 2",
    "gated-pixelcnn": "--channels 4 --layers 2 --conditional true",
    "pixelcnn-pp": "--channels 4 --layers 1 --halvings 1",
    "pixel-rnn": "--channels 4 --layers 2",
}
"""Models of the embedded digits, by name, as small as they get."""


@pytest.mark.parametrize("name", SMALL)
def test_every_model_of_images_trains_and_is_measured_on_the_device(name: str, tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    words = [*SMALL[name].split(), "--steps", "4", "--batch-size", "16", "--device", "cuda", "--out", out]
    assert main(["train", name, *words]) == 0
    assert main(["evaluate", out, "--num-particles", "2", "--device", "cuda"]) == 0
    if name == "vae":
        assert main(["evaluate", out, "--ais-steps", "3", "--ais-data", "5", "--device", "cuda"]) == 0
    if name != "classifier":
        assert main(["sample", out, "-n", "3", "--device", "cuda", "--out", str(tmp_path / "x.npz")]) == 0


OBJECTIVES = {
    "avb": "vae", "aae": "vae", "wae": "vae", "alpha-gan": "vae", "veegan": "vae", "ali": "vae", "iwae": "vae",
    "factor-vae": "vae", "beta-tc-vae": "vae", "gan": "generator", "fgan": "generator", "wgan": "generator",
    "wgan-gp": "generator", "mmd": "generator", "mmd-gan": "generator", "sinkhorn": "generator",
    "energy-distance": "generator", "sliced-wasserstein": "generator",
}  # fmt: skip


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains_on_the_device(name: str, tmp_path: Path) -> None:
    out, model = str(tmp_path / "run"), OBJECTIVES[name]
    words = [*SMALL[model].split(), "--steps", "4", "--batch-size", "16", "--device", "cuda", "--out", out]
    if model == "vae":
        words += ["--likelihood", "laplace", "--pixels", "dequantized"]
    assert main(["train", model, "--objective", name, *words]) == 0


@pytest.mark.parametrize("name", ["lda", "prodlda", "correlated-topics", "dirichlet-process-mixture"])
def test_every_model_of_mixtures_trains_on_the_device(name: str, tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for i in range(40):
        (texts / f"{i}.txt").write_text(" ".join(["river", "water", "bank", "money", "loan"][i % 3 :] * (5 + i)))
    data = "iris" if name == "dirichlet-process-mixture" else str(texts)
    out = str(tmp_path / "run")
    assert main(["train", name, "--data", data, "--steps", "4", "--device", "cuda", "--out", out]) == 0
    assert main(["evaluate", out, "--device", "cuda"]) == 0


@pytest.mark.parametrize("name", ["char-rnn", "char-rnn --network gru", "transformer"])
def test_models_of_text_train_and_write_on_the_device(name: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("in the beginning was the word\n" * 200)
    out, width = str(tmp_path / "run"), "--width" if name == "transformer" else "--hidden"
    words = ["--data", str(tmp_path / "text.txt"), width, "8", "--length", "20", "--steps", "4", "--device", "cuda"]
    assert main(["train", *name.split(), *words, "--out", out]) == 0
    assert main(["evaluate", out, "--dynamic-rate", "0.0005", "--device", "cuda"]) == 0
    told = ["--prefix", "in the", "--length", "20", "--device", "cuda", "--out", str(tmp_path / "x.txt")]
    assert main(["sample", out, *told]) == 0


@pytest.mark.parametrize("name", ["vae", "generator", "pixelcnn", "classifier"])
def test_a_report_card_is_filled_in_on_the_device(name: str, tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    words = [*SMALL[name].split(), "--steps", "4", "--batch-size", "16", "--device", "cuda", "--out", out]
    assert main(["train", name, *words]) == 0
    assert main(["evaluate", out, "--all", "--num-particles", "2", "--device", "cuda"]) == 0


def test_digits_are_learned_by_few_labels_on_the_device(tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    words = ["--latent", "2", "--hidden", "[8]", "--labels", "50", "--steps", "4", "--device", "cuda", "--out", out]
    assert main(["train", "m2", *words]) == 0
    assert main(["evaluate", out, "--all", "--num-particles", "2", "--device", "cuda"]) == 0


def test_a_table_is_learned_and_completed_on_the_device(tmp_path: Path) -> None:
    table = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    table[::3, 1] = np.nan
    np.save(tmp_path / "table.npy", table, allow_pickle=False)
    out, words = str(tmp_path / "run"), ["--latent", "1", "--hidden", "[8]", "--steps", "4", "--device", "cuda"]
    assert (
        main(["train", "miwae", "--data", str(tmp_path / "table.npy"), "--missing", "true", *words, "--out", out]) == 0
    )
    assert main(["evaluate", out, "--num-particles", "2", "--device", "cuda"]) == 0
    assert main(["complete", out, "--device", "cuda", "--out", str(tmp_path / "full.npz")]) == 0


def test_outliers_are_scored_on_the_device(tmp_path: Path) -> None:
    np.save(tmp_path / "odd.npy", np.full((30, 8, 8), 16, dtype=np.uint8), allow_pickle=False)
    out = str(tmp_path / "run")
    words = [*SMALL["vae"].split(), "--steps", "4", "--batch-size", "16", "--device", "cuda", "--out", out]
    assert main(["train", "vae", *words]) == 0
    scored = ["outliers", out, str(tmp_path / "odd.npy"), "--device", "cuda", "--out", str(tmp_path / "scores.csv")]
    assert main(scored) == 0


POLICIES = {
    "kl-control": "CartPole-v1 --recording-steps 8",
    "ppo": "CartPole-v1 --recording-steps 8 --uses 2 --minibatches 2",
    "soft-q": "CartPole-v1 --warmup 16",
    "sac": "Pendulum-v1 --warmup 16",
    "mpo": "Pendulum-v1 --warmup 16",
    "virel": "Pendulum-v1 --warmup 16",
}
"""Environments and settings by objective."""


@pytest.mark.parametrize("compiled", ["on", "off"])
@pytest.mark.parametrize("name", POLICIES)
def test_every_objective_of_policies_trains_on_the_device(name: str, compiled: str, tmp_path: Path) -> None:
    pytest.importorskip("gymnasium")
    out = str(tmp_path / "run")
    words = [*POLICIES[name].split(), "--num-environments", "4", "--steps", "128", "--evaluation-episodes", "2"]
    words = ["--objective", name, "--env", *words, "--compile", compiled, "--device", "cuda", "--out", out]
    assert main(["train", "policy", *words]) == 0
    assert main(["evaluate", out, "--device", "cuda"]) == 0
