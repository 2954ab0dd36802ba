"""Runs side by side: what is kept of each datum, who is ranked with whom, and what is said of the others."""

import json

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from pyrogen.card import evaluate
from pyrogen.cli import main
from pyrogen.comparison import compare
from pyrogen.data import from_arrays
from pyrogen.pointwise import Pointwise, pointwise_of
from pyrogen.ranking import rankings

X = np.random.default_rng(0).normal(size=(40, 2)).astype("float32")
Y = np.arange(40) % 3


@pytest.fixture
def data():
    return from_arrays({"x": X, "y": Y}, name="forty", validation=0.0, test=0.5)


def normal(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1), obs=x)


def given_label(x, y):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(y[:, None].expand(-1, 2).float(), 1.0).to_event(1), obs=x)


def with_latent(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z[..., None].expand(*z.shape, 2), 1.0).to_event(1), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.sum(1) / 3, 3**-0.5))  # the posterior: weights are constant


def shared(x):
    mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0).to_event(1), obs=x)


def of_mu(x):
    pyro.sample("mu", dist.Normal(torch.zeros(2), 1e-6).to_event(1))


STANDARD = torch.distributions.Normal(0.0, 1.0)


@pytest.mark.parametrize(
    ("model", "guide", "figure", "density"),
    [
        (normal, None, "log_likelihood", "x"),
        (given_label, None, "log_likelihood", "x given y"),
        (with_latent, guide, "iwae", "x"),
        (shared, of_mu, "log_predictive", "x"),
    ],
)
def test_values_are_of_each_datum_in_order(data, model, guide, figure, density):
    columns = data.eval_columns("test")
    x = columns["x"]
    exact = STANDARD.log_prob(x).sum(1)
    if model is given_label:
        exact = STANDARD.log_prob(x - columns["y"][:, None]).sum(1)
    if model is with_latent:  # x ~ N(0, 1 1' + I)
        exact = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2) + 1).log_prob(x)
    figures = evaluate(model, guide, data, num_particles=10, batch_size=7)
    found = pointwise_of(model, guide, data, "test", figures)
    assert (found.figure, found.density) == (figure, density)
    np.testing.assert_allclose(found.values, exact, atol=1e-4)
    assert np.mean(found.values) == pytest.approx(figures[figure].value)


def kept(values, figure="log_likelihood", density="x", num_particles=None):
    return Pointwise(figure, density, num_particles, values)._asdict()


def test_only_the_same_densities_are_ranked():
    found = {
        "a": kept([-1.0, -2.0, -3.0]),
        "b": kept([-2.0, -2.5, -3.0]),
        "labels": kept([-0.1, -0.1, -0.1], density="y given x"),
        "more": kept([-0.1] * 4),
        "never": kept([-0.1, None, None]),
        "gan": None,
        "old": {},
    }
    [ranking], left_out = rankings(found, "test")
    assert [(name, of.rank) for name, of in ranking.standings.items()] == [("a", 1), ("b", 2)]
    assert ranking.standings["b"].elpd_diff == pytest.approx(-1.5)
    assert ranking.standings["b"].dse == pytest.approx((3 * np.var([1.0, 0.5, 0.0])) ** 0.5)
    assert set(left_out) == {"labels", "more", "never", "gan", "old"}
    assert "log p(y given x)" in left_out["labels"]
    assert "2 of 3 data is not finite" in left_out["never"]
    assert "no density" in left_out["gan"]
    assert "run `pyrogen evaluate` again" in left_out["old"]
    assert ranking.title() == "log p(x) of the 3 test data, summed"
    assert not any("Bounds" in note for note in ranking.notes)


def test_each_density_has_a_ranking_of_its_own():
    found = {name: kept([-1.0, -2.0], density=of) for name, of in (("a", "x"), ("b", "y"), ("c", "y"), ("d", "x"))}
    ranked, left_out = rankings(found, "test")
    assert [(of.density, set(of.standings)) for of in ranked] == [("x", {"a", "d"}), ("y", {"b", "c"})]
    assert not left_out


@pytest.mark.parametrize(
    ("figures", "split", "says"),
    [
        (("log_likelihood", "iwae"), "test", "of b, stand beside exact values"),
        (("iwae", "log_predictive"), "test", "of a, b, stand beside other bounds"),
        (("log_likelihood", "log_likelihood"), "train", "that the models were fitted to"),
        (("log_likelihood", "log_predictive"), "test", "Errors of b, and of differences from these, leave out"),
    ],
)
def test_what_is_to_be_heeded_is_said(figures, split, says):
    values = ([-1.0, -2.0], [-3.0, -3.0])
    found = {name: kept(of, figure) for name, of, figure in zip("ab", values, figures, strict=True)}
    [ranking], _ = rankings(found, split)
    assert says in " ".join(ranking.notes)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    np.save(folder / "table.npy", np.concatenate([X, X + 0.1, X - 0.1]))
    models = {
        "ppca": "ppca --latent 1",
        "mixture": "dirichlet-process-mixture --components 2",
        "gan": "generator --hidden [8] --objective mmd",
    }
    for name, model in models.items():
        train = f"train {model} --data {folder / 'table.npy'} --steps 5 --compile off --out {folder / name}"
        assert main(train.split()) == 0
        assert main(["evaluate", str(folder / name), "--num-particles", "20"]) == 0
    return [str(folder / name) for name in models]


def test_compare_ranks_what_has_a_likelihood(runs, tmp_path, capsys):
    assert main(["compare", *runs, "--out", str(tmp_path / "c.html"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    [ranking] = said["rankings"]
    assert (ranking["density"], ranking["split"], ranking["num_data"]) == ("x", "test", 12)
    assert set(ranking["runs"]) == {"ppca", "mixture"}
    figures = {"ppca": "iwae", "mixture": "log_predictive"}
    for name, of in ranking["runs"].items():
        assert of["figure"] == figures[name]
        assert of["elpd"] == pytest.approx(12 * said["runs"][name][figures[name]]["value"])
    assert sum(of["weight"] for of in ranking["runs"].values()) == pytest.approx(1.0, abs=1e-6)
    assert list(said["left_out"]) == ["gan"]
    page = (tmp_path / "c.html").read_text()
    assert "log p(x) of the 12 test data" in page
    assert "gan is in no ranking" in page
    assert "Samples of gan" in page


def test_compare_says_it_in_words(runs, tmp_path, capsys):
    assert main(["compare", *runs, "--out", str(tmp_path / "c.html")]) == 0
    said = capsys.readouterr().out
    assert "log p(x) of the 12 test data, summed, in nats:" in said
    assert "gan is in no ranking by likelihood: its draws have no density" in said
    found = compare(runs[1:], tmp_path / "d.html")
    assert not found.rankings
    assert set(found.left_out) == {"mixture", "gan"}
    assert "mixture is in no ranking" in found.page.read_text()


def test_one_run_is_not_compared(runs, tmp_path, capsys):
    assert main(["compare", runs[0], "--out", str(tmp_path / "c.html")]) == 2
    assert "comparing takes two runs or more, found 1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_documents_are_ranked_by_half_of_each(tmp_path, capsys):
    runs = [str(tmp_path / name) for name in ("three", "five")]
    for run, topics in zip(runs, (3, 5), strict=True):
        assert main(f"train lda --data reuters --topics {topics} --steps 2 --compile off --out {run}".split()) == 0
        assert main(["evaluate", run, "--num-particles", "5"]) == 0
    capsys.readouterr()
    assert main(["compare", *runs, "--out", str(tmp_path / "c.html"), "--json"]) == 0
    [ranking] = json.loads(capsys.readouterr().out)["rankings"]
    assert ranking["density"] == "half of a document given the other"
    assert {of["figure"] for of in ranking["runs"].values()} == {"completion_log_likelihood"}
