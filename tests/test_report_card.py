"""The report card: figures of known programs, references beside them, and reasons where there are none."""

import json
from dataclasses import replace
from functools import partial
from math import pi
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

from pyrogen.card import evaluate
from pyrogen.cli import main
from pyrogen.data import Dataset, digits, keep_labels, reuters
from pyrogen.evaluation import fingerprint, label_calibration, linear_probe
from pyrogen.feature_network import fit_features
from pyrogen.inference import ELBO, EnergyDistance, MaximumLikelihood
from pyrogen.models import LDA, Incomplete, MeanField
from pyrogen.report_card import report_card
from pyrogen.spec import DataSpec

SIGMA = 0.5


def columns(size: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(size, 2, generator=generator)
    x = z + SIGMA * torch.randn(size, 2, generator=generator)
    return {"x": x, "y": (z[:, 0] > 0).long()}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    spec = DataSpec((2,), "real", num_classes=2, name="clouds", num_data=600)
    return Dataset("clouds", columns(600, 0), columns(100, 1), columns(500, 2), spec)


class Cloud(nn.Module):
    """Two normal latents, seen with noise; draws can be made to lie in a point."""

    def __init__(self, spread: float = 1.0) -> None:
        super().__init__()
        self.spread = spread
        self.shift = nn.Parameter(torch.zeros(2))

    def forward(self, x: torch.Tensor | None = None, size: int | None = None) -> torch.Tensor:
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            mean = self.spread * z + self.shift
            return pyro.sample("x", dist.Normal(mean, self.spread * SIGMA).to_event(1), obs=x)


def posterior(scale: float | torch.Tensor = 1.0):
    """Return the exact guide of the cloud, with its standard deviation multiplied."""

    def guide(x: torch.Tensor) -> None:
        precision = 1 + SIGMA**-2
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x * SIGMA**-2 / precision, scale * precision**-0.5).to_event(1))

    return guide


def card(model, guide, dataset, objective=None):
    pyro.set_rng_seed(0)
    objective = objective or ELBO()
    by_samples = objective.by_samples
    measured = evaluate(model, guide, dataset, "test", 10, by_samples=by_samples, objective=objective)
    axes = report_card(model, guide, dataset, "test", measured, objective, features=nn.Identity())
    return {axis.name: axis for axis in axes}


@pytest.fixture(scope="module")
def right(dataset):
    return card(Cloud(), posterior(), dataset)


def test_every_figure_of_a_program_that_is_right_is_near_its_reference(right):
    compared = {name: (axis.figures[name], ref) for axis in right.values() for name, ref in axis.references.items()}
    assert {"energy_distance", "frechet_distance", "density", "knn_probe", "sbc_distance"} < set(compared)
    assert abs(right["samples"].figures["nearer_training"].value - 0.5) < 0.1
    for name, (figure, reference) in compared.items():
        # Density has no error of its own: counts within five balls vary like Poisson's, and are alike nearby.
        errors = [0.05 if e.stderr is None else e.stderr for e in (figure, reference)]
        assert abs(figure.value - reference.value) < 4.5 * sum(e**2 for e in errors) ** 0.5 + 0.02, name


def test_likelihoods_are_those_of_the_closed_form(right, dataset):
    truth = dist.MultivariateNormal(torch.zeros(2), (1 + SIGMA**2) * torch.eye(2))
    train, test = (truth.log_prob(dataset.split(of)["x"]) for of in ("train", "test"))
    figures = right["likelihood"].figures
    assert figures["elbo"].value == pytest.approx(float(test.mean()), abs=1e-5)  # with the posterior there is no gap
    assert figures["train_gap"].value == pytest.approx(float(train[:500].mean() - test.mean()), abs=1e-5)
    both = (float(train[:500].var()) / 500 + float(test.var()) / 500) ** 0.5
    assert figures["train_gap"].stderr == pytest.approx(both, rel=1e-4)


def test_a_model_that_draws_one_point_covers_nothing(right, dataset):
    found = card(Cloud(1e-3), posterior(), dataset)["samples"]
    assert found.figures["coverage"].value < 0.1 < 0.9 < right["samples"].figures["coverage"].value
    assert found.figures["frechet_distance"].value > 10 * found.references["frechet_distance"].value
    assert found.references["coverage"].value > 0.9
    assert found.figures["two_sample_accuracy"].value > 0.9
    assert abs(found.references["two_sample_accuracy"].value - 0.5) < 0.1


def test_draws_that_are_training_data_are_found_out(dataset):
    class Copies(nn.Module):
        def forward(self, x: torch.Tensor | None = None, size: int = 1) -> torch.Tensor:
            with pyro.plate("data", size if x is None else len(x)):
                fn = dist.MixtureSameFamily(
                    dist.Categorical(torch.ones(600)), dist.Normal(dataset.train["x"], 1e-4).to_event(1)
                )
                return pyro.sample("x", fn, obs=x)

    assert card(Copies(), None, dataset, MaximumLikelihood())["samples"].figures["nearer_training"].value > 0.95


def test_features_are_named_by_their_fingerprint(dataset):
    torch.manual_seed(0)
    network = nn.Linear(2, 3)
    notes = [
        report_card(Cloud(), None, dataset, "test", {}, EnergyDistance(), features=network)[1].notes for _ in range(2)
    ]
    with torch.no_grad():
        network.bias += 1
    other = report_card(Cloud(), None, dataset, "test", {}, EnergyDistance(), features=network)[1].notes
    assert "SHA-256" in notes[0][0]
    assert notes[0] == notes[1] != other


def test_data_without_labels_or_values_say_so(dataset):
    columns = {name: {"x": dataset.split(name)["x"].clone()} for name in ("train", "validation", "test")}
    bare = replace(dataset, **columns, spec=replace(dataset.spec, num_classes=None))
    axes = report_card(Cloud(), posterior(), bare, "test", {}, ELBO())
    assert "no labels to learn features by" in axes[1].notes[0]
    assert "no labels to read off codes" in axes[2].notes[0]
    bare.test["x"][0, 0] = torch.nan
    model, guide = Incomplete(Cloud()), posterior()
    axes = report_card(model, lambda x: guide(x.nan_to_num()), bare, "test", {}, ELBO())
    assert "data lack values" in axes[1].notes[0]
    assert axes[1].figures == {}


def test_a_guide_that_is_too_sure_fails_calibration(right, dataset):
    assert right["calibration"].figures["sbc_p_value"].value > 1e-3
    sure = card(Cloud(), posterior(0.6), dataset)["calibration"]
    assert sure.figures["sbc_p_value"].value < 1e-4
    assert sure.figures["sbc_distance"].value > 2 * sure.references["sbc_distance"].value
    one = card(Cloud(), posterior(torch.tensor([0.6, 1.0])), dataset)["calibration"]
    assert one.figures["sbc_p_value"].value < 1e-4


def test_replicates_of_a_model_of_another_spread_are_found_out(right, dataset):
    """A guide that is the posterior still gives replicates whose spread is the model's own."""
    calibration = right["calibration"]
    assert all(0.01 < calibration.figures[f"ppc_{name}"].value < 0.99 for name in ("mean", "sd", "min", "max"))
    assert "ppc_zeros" not in calibration.figures  # no value is zero, in data and replicates
    assert "used twice" in calibration.notes[0]
    assert (calibration.references["ppc_sd"].value, calibration.references["ppc_sd"].stderr) == (0.5, 12**-0.5)
    wide = card(Cloud(), posterior(3.0), dataset)["calibration"]
    assert wide.figures["ppc_sd"].value > 0.98
    wrong = card(Cloud(2.0), None, dataset, EnergyDistance())["calibration"]
    assert wrong.figures["ppc_sd"].value > 0.98


def test_a_guide_that_knows_nothing_has_no_active_unit(right, dataset):
    def prior(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))

    found = card(Cloud(), prior, dataset)["representation"]
    assert found.figures["active_units"].value == 0
    assert right["representation"].figures["active_units"].value == 2
    assert found.figures["linear_probe"].value < 0.65 < 0.8 < right["representation"].figures["linear_probe"].value


def test_a_guide_that_did_not_learn_is_left_out(dataset):
    found = card(Cloud(), posterior(), dataset, EnergyDistance())
    assert "was not fitted by it" in found["likelihood"].notes[0]
    assert found["representation"].figures == {}
    assert "no guide was fitted" in found["representation"].notes[0]
    assert set(found["calibration"].figures) == {"ppc_mean", "ppc_sd", "ppc_min", "ppc_max"}
    assert "no posterior" in found["calibration"].notes[0]
    assert "of new draws of the model" in found["calibration"].notes[1]


class Forecast(PyroModule):
    """Says one class with the same probability of all."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            probs = torch.tensor([1 - self.p, self.p]).expand(len(x), 2)
            pyro.sample("y", dist.Categorical(probs), obs=y)


def test_calibration_of_labels_is_that_of_the_closed_form(dataset):
    pyro.set_rng_seed(0)
    test = dataset.eval_columns("test")
    share = float(test["y"].double().mean())
    said, ideal = label_calibration(Forecast(0.8), [test])
    assert said.value == pytest.approx(0.8 - share, abs=1e-6)
    # The share of outcomes is normal about 0.8: so is its distance, folded.
    sd = (0.8 * 0.2 / 500) ** 0.5
    expected, spread = sd * (2 / pi) ** 0.5, sd * (1 - 2 / pi) ** 0.5
    assert ideal.stderr == pytest.approx(spread, rel=0.25)
    assert abs(ideal.value - expected) < 4.5 * spread / 200**0.5


def test_a_classifier_says_what_does_not_apply(dataset):
    found = card(Forecast(0.8), None, dataset, MaximumLikelihood())
    share = float(dataset.test["y"].double().mean())
    assert found["calibration"].figures["label_ece"].value == pytest.approx(0.8 - share, abs=1e-6)
    assert found["calibration"].references["label_ece"].value < 0.05
    assert found["samples"].figures == {}
    assert "draws no data: it is of y" in found["samples"].notes[0]
    assert "no guide was fitted" in found["representation"].notes[0]


def test_topics_say_what_does_not_apply():
    corpus = reuters()
    model = LDA(corpus.spec.num_dims, 3, corpus.num_data("train"))
    found = card(model, MeanField(model), corpus)
    assert set(found["representation"].figures) == {"npmi", "topic_diversity"}
    assert found["likelihood"].figures
    assert not found["likelihood"].notes
    assert not found["samples"].figures
    assert "topics are measured by" in found["samples"].notes[0]


def test_features_know_labels_and_are_the_same_again():
    data = digits()
    before = torch.get_rng_state()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        network = fit_features(data, num_steps=200)
        torch.set_num_threads(2)
        again = fit_features(data, num_steps=200)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert fingerprint(network) == fingerprint(again)
    assert torch.equal(torch.get_rng_state(), before)
    x, y = (2 * data.eval_columns(of)["x"] / 16 - 1 for of in ("train", "test"))
    assert torch.equal(network(y), again(y))
    labels, wanted = data.train["y"], data.test["y"]
    assert network(y).shape == (180, 64)
    assert linear_probe(network(x), labels, network(y), wanted).value > 0.93


@pytest.mark.parametrize(
    ("options", "count", "says"),
    [
        (["ppca", "--data", "iris", "--steps", "5"], 15, "two_sample_accuracy: the test takes 20 data"),
        (
            ["ppca", "--data", "iris", "--steps", "5", "--labels", "4"],
            15,
            "two_sample_accuracy: the test takes 20 data",
        ),
        (["ppca", "--data", "iris", "--steps", "5", "--labels", "1"], 15, "there is one class alone"),
        (
            ["m2", "--data", "iris", "--labels", "9", "--steps", "5", "--hidden", "[8]"],
            15,
            "the guide is told the label",
        ),
        (["dirichlet-process-mixture", "--data", "iris", "--steps", "5"], 15, "latents are shared by all data"),
        (["generator", "--data", "ring", "--objective", "gan", "--steps", "5"], 1000, "draws have no density"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_cards_of_all_kinds(
    options: list[str],
    count: int,
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a card cannot say, by few data or labels, costs no other figure."""
    monkeypatch.setattr("pyrogen.sample_axis.fit_features", partial(fit_features, num_steps=20))
    run = str(tmp_path / "run")
    assert main(["train", *options, "--out", run]) == 0
    capsys.readouterr()
    assert main(["evaluate", run, "--all", "--num-particles", "10", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert any(says in note for axis in found["axes"].values() for note in axis["notes"])
    assert f"of {count:,} da" in found["metrics"]["coverage"]["unit"]
    assert main(["evaluate", run, "--all", "--split", "train"]) == 2
    assert "a report card is of held-out data" in capsys.readouterr().err


def test_draws_of_a_model_of_shared_latents_are_those_that_were_learned(dataset):
    class Shared(nn.Module):
        num_data = 600

        def forward(self, x: torch.Tensor | None = None, size: int = 1) -> torch.Tensor:
            mean = pyro.sample("mean", dist.Normal(0.0, 100.0).expand([2]).to_event(1))
            with pyro.plate("data", size if x is None else len(x)):
                return pyro.sample("x", dist.Normal(mean, (1 + SIGMA**2) ** 0.5).to_event(1), obs=x)

    def guide(x: torch.Tensor) -> None:
        pyro.sample("mean", dist.Normal(torch.zeros(2), 0.05).to_event(1))

    found = card(Shared(), guide, dataset)
    assert found["samples"].figures["coverage"].value > 0.9
    assert "latents are shared by all data" in found["calibration"].notes[0]
    assert "one draw of the shared latents each" in found["calibration"].notes[1]
    assert 0.01 < found["calibration"].figures["ppc_mean"].value < 0.99


class Classes(nn.Module):
    """Two classes, one value away from each other in every element, with labels that are drawn or known."""

    def forward(self, x: torch.Tensor | None = None, y: torch.Tensor | None = None, size: int = 1) -> torch.Tensor:
        if x is None and y is not None:
            with pyro.plate("data", len(y)):
                return self.x(y, None)
        with pyro.plate("data", size if x is None else len(x)):
            return self.x(pyro.sample("y", dist.Categorical(torch.ones(2))), x)

    def x(self, y: torch.Tensor, x: torch.Tensor | None) -> torch.Tensor:
        return pyro.sample("x", dist.Normal(y.unsqueeze(-1).float(), torch.ones(2)).to_event(1), obs=x)


def of_class(x: torch.Tensor, y: torch.Tensor | None = None) -> None:
    """The exact posterior of the label, or a point where it is known."""
    logits = torch.stack([torch.zeros(len(x)), (x - 0.5).sum(-1)], -1)
    if y is not None:
        known = torch.where(torch.arange(2) == y.unsqueeze(-1), 0.0, -1e6)
        logits = torch.where((y >= 0).unsqueeze(-1), known, logits)
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Categorical(logits=logits))


def test_labels_that_are_inferred_are_held_to_what_is_simulated(dataset):
    torch.manual_seed(0)
    y = torch.arange(1200) % 2
    x = torch.randn(1200, 2) + y.unsqueeze(-1)
    parts = [{"x": x[of], "y": y[of]} for of in (slice(600), slice(600, 700), slice(700, None))]
    data = Dataset("classes", *parts, DataSpec((2,), "real", num_classes=2, name="classes"))
    found = card(Classes(), of_class, data)
    assert found["calibration"].figures["sbc_p_value"].value > 1e-3
    assert abs(found["likelihood"].figures["train_gap"].value) < 4.5 * found["likelihood"].figures["train_gap"].stderr
    assert not any("--ais-steps" in note for note in found["likelihood"].notes)
    few = card(Classes(), of_class, keep_labels(data, 300))["likelihood"].figures["train_gap"]
    assert abs(few.value) < 4.5 * few.stderr  # of data whose labels are known, on either side


@pytest.mark.slow
def test_the_command_fills_in_a_card_and_the_report_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = tmp_path / "run"
    main(["train", "vae", "--data", "digits", "--steps", "20", "--hidden", "[8]", "--latent", "2", "--out", str(run)])
    capsys.readouterr()
    main(["evaluate", str(run), "--all", "--num-particles", "10", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert list(found["axes"]) == ["likelihood", "samples", "representation", "calibration"]
    named = [name for axis in found["axes"].values() for name in axis["figures"]]
    assert sorted(named) == sorted(found["metrics"])
    assert all(set(axis["references"]) <= set(axis["figures"]) for axis in found["axes"].values())
    main(["report", str(run)])
    page = (run / "report.html").read_text()
    assert "Report card on the test data" in page
    assert "--ais-steps 500" in page
    assert 'scope="rowgroup"' in page
    main(["evaluate", str(run), "--num-particles", "10"])
    main(["report", str(run)])
    assert "Figures on the test data" in (run / "report.html").read_text()
