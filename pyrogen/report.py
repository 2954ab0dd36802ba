"""A run on one page."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyro
from matplotlib.axes import Axes

from pyrogen import pictures
from pyrogen.analysis import to_arviz
from pyrogen.calibration_exhibits import calibration_exhibits
from pyrogen.data import Corpus, Dataset, Text
from pyrogen.errors import UsageError
from pyrogen.evaluation import evaluating
from pyrogen.exhibits import Exhibit, exhibits, loss_curves, text_exhibits, topic_exhibits
from pyrogen.files import write_file
from pyrogen.inferencedata import summary, write_netcdf
from pyrogen.language import is_reader
from pyrogen.loading import load, load_objective
from pyrogen.page import Content, Table, cells, evaluation, render
from pyrogen.pictures import Ink
from pyrogen.policy_report import policy_content
from pyrogen.recipe import Programs, Recipe
from pyrogen.rehearsal import rehearsal
from pyrogen.runs import Run
from pyrogen.sites import Program
from pyrogen.text_pictures import text_rows
from pyrogen.topic_pictures import word_rows
from pyrogen.topics import Topics, topics_of

__all__ = ["write_report"]

TRUSTED = 0.7
"""The Pareto shape up to which importance weights mend a guide (Vehtari et al., 2024)."""

MOST_VALUES = 30
"""A latent variable of more values than this is for posterior.nc, not for a table."""


def write_report(
    run: str | Path | Run, model: Program | None = None, guide: Program | None = None, *args: Any, **kwargs: Any
) -> Path:
    """Write ``report.html``, its pictures and ``posterior.nc`` into a run directory.

    The page needs no network and no other file. Of a run of ``pyrogen train`` it shows learning curves, figures,
    samples, reconstructions, nearest neighbours, the latent space and how far the guide is to be trusted; of a policy
    the curves of its returns, its actions and an episode; of the user's own programs the curves and the posterior.

    Args:
        run: the run directory.
        model: for a run of the user's own programs: the model as it was built for the fit, and its guide and
            arguments, observed data included.

    Returns:
        The page's path.

    Raises:
        MissingInputError: where there is no run, or no checkpoint in it.
        UsageError: where the run is of the user's own programs, and they are not given.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    kind = run.manifest.get("kind")
    if kind in CONTENTS:
        content = CONTENTS[kind](run)
    elif model is not None:
        content = _of_programs(run, model, guide, args, kwargs)
    else:
        raise UsageError(
            f"{run.path} was made by programs of its own: give them, as pyrogen.write_report(run, model, guide, *data)"
        )
    tables = [content.figures, *content.further, Table("Settings", (), _settings(run.manifest))]
    for exhibit in content.exhibits:
        write_file(run.path / f"{exhibit.name}.png", exhibit.drawing.light)
    page = render(run.path.resolve().name, content.lead, tables, content.exhibits, content.command)
    write_file(run.path / "report.html", page)
    return run.path / "report.html"


def _of_recipe(run: Run) -> Content:
    recipe = Recipe.from_json(run.manifest)
    dataset = recipe.dataset_of(run.manifest)
    programs = load(run)
    objective = load_objective(run, recipe, dataset, programs)
    if not objective.fits_guide:
        programs = Programs(programs.model, None)
    with rehearsal(), evaluating(*programs):
        pyro.set_rng_seed(recipe.seed)
        if isinstance(dataset, Corpus):
            topics = topics_of(*programs, dataset)
            shown, further = topic_exhibits(topics, dataset), [_topics(topics, dataset)]
        elif isinstance(dataset, Text) and is_reader(programs.model, dataset.spec):
            written = Table(
                "Samples", (), text_rows(programs.model, dataset), "Drawn from the model, without a prefix."
            )
            shown, further = text_exhibits(programs.model, dataset), [written]
        else:
            shown, further = exhibits(programs, dataset), []
            shown += calibration_exhibits(programs, dataset, objective) if isinstance(dataset, Dataset) else []
    if programs.guide is not None and recipe.data_b is None:
        data = to_arviz(run, num_samples=50 if isinstance(dataset, Corpus) else 200)
        write_netcdf(data, run.path / "posterior.nc")
        shown += _trust(data)
    lead = (
        f"{recipe.model.name} fitted by {recipe.objective.name}. {dataset.describe()}. {run.checkpoints()[-1]:,} steps."
    )
    shown = loss_curves(run.metrics(), "nats per datum" if objective.sums_over_data else "loss") + shown
    return Content(lead, recipe.command(run.path), _figures(run), shown, further)


def _topics(topics: Topics, corpus: Corpus) -> Table:
    head = ("topic", "share", "coherence", "most probable words")
    note = "Shares are of the training words; coherence is NPMI of the ten most probable words, up to 1."
    return Table("Topics", head, word_rows(topics, corpus), note)


def _of_programs(run: Run, model: Program, guide: Program | None, args: Any, kwargs: Any) -> Content:
    data = to_arviz(load(run, model, guide), *args, **kwargs)
    write_netcdf(data, run.path / "posterior.nc")
    shown = [*loss_curves(run.metrics()), *_intervals(data), *_trust(data)]
    lead = f"The user's own programs. {run.checkpoints()[-1]:,} steps."
    return Content(lead, "", _posterior(data), shown, [])


def _figures(run: Run) -> Table:
    split, found, axes, *_ = evaluation(run)
    if not found:
        return Table("Figures", (), (), f"None yet: run `pyrogen evaluate {run.path}`, then `pyrogen report` again.")
    if axes:
        return _report_card(split, found, axes)
    head = ("figure", "value", "± s.e.", "unit", "particles")
    rows = [[name, *cells(f), f["unit"], str(f.get("num_particles", ""))] for name, f in found.items()]
    return Table(f"Figures on the {split} data", head, rows)


def _report_card(split: str, found: dict[str, dict[str, Any]], axes: dict[str, dict[str, Any]]) -> Table:
    rows = []
    for name, axis in axes.items():
        rows.append(["; ".join([name.capitalize(), *axis["notes"]])])
        for figure in axis["figures"]:
            beside = axis["references"].get(figure)
            rows.append(
                [figure, *cells(found[figure]), *(cells(beside) if beside else ("", "")), found[figure]["unit"]]
            )
    note = (
        "References: of samples, what as many training data score in the place of draws; of probes, what the data "
        "themselves tell; of calibration, what forecasts and posteriors that are right score by chance."
    )
    head = ("figure", "value", "± s.e.", "reference", "± s.e.", "unit")
    return Table(f"Report card on the {split} data", head, rows, note)


def _in_a_table(data: Any) -> list[str]:
    posterior = data["posterior"]
    draws = posterior.sizes["chain"] * posterior.sizes["draw"]
    return [name for name in posterior.data_vars if posterior[name].size // draws <= MOST_VALUES]


def _posterior(data: Any) -> Table:
    names = _in_a_table(data)
    if not names:
        return Table("Posterior", (), (), "Every latent variable has too many values for a table: see posterior.nc.")
    found = summary(data, names)
    rows = [[str(index), *(_short(float(value)) for value in row)] for index, row in found.iterrows()]
    return Table("Posterior", ("", *map(str, found.columns)), rows, _verdict(data))


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _verdict(data: Any) -> str:
    attrs = data["sample_stats"].attrs if _has(data, "sample_stats") else {}
    if attrs.get("constant_weights"):
        return "The importance weights are constant: the guide is the exact posterior."
    k = attrs.get("pareto_k")
    if k is None or not np.isfinite(k):
        return ""
    trusted = "so its importance weights can be trusted" if k <= TRUSTED else "so do not trust this guide's tails"
    return f"The Pareto shape of the guide's importance weights is {k:.2f}, {trusted} (up to {TRUSTED})."


def _intervals(data: Any) -> list[Exhibit]:
    labels: list[str] = []
    bounds: list[Any] = []
    for name in _in_a_table(data):
        draws = data["posterior"][name].stack(sample=("chain", "draw")).transpose("sample", ...)
        labels += [f"{name}[{', '.join(map(str, i))}]" if i else name for i in np.ndindex(draws.shape[1:])]
        bounds += list(np.quantile(draws.values.reshape(draws.shape[0], -1), (0.05, 0.25, 0.5, 0.75, 0.95), axis=0).T)
    if not labels:
        return []

    def forest(axes: Axes, ink: Ink) -> None:
        for y, (outer_low, low, middle, high, outer_high) in enumerate(reversed(bounds)):
            axes.plot((outer_low, outer_high), (y, y), color=ink.series[0], linewidth=1.2)
            axes.plot((low, high), (y, y), color=ink.series[0], linewidth=3.2)
            axes.plot(middle, y, "o", color=ink.series[1], markersize=4)
        axes.set_yticks(range(len(labels)), labels[::-1])

    drawing = pictures.draw(forest, (5.8, 1.0 + 0.24 * len(labels)))
    return [Exhibit("intervals", "Posterior intervals", "Medians, with 50% and 90% intervals.", drawing)]


def _trust(data: Any) -> list[Exhibit]:
    """Show, where latents are local, for how many data the guide can be trusted."""
    if not _has(data, "sample_stats") or "pareto_k" not in data["sample_stats"].data_vars:
        return []
    k = data["sample_stats"]["pareto_k"].values
    k = k[np.isfinite(k)]
    if not len(k):
        return []
    caption = (
        f"The Pareto shape k of the importance weights of {len(k)} held-out data. {np.mean(k > TRUSTED):.0%} are above "
        f"{TRUSTED}, where importance weights cannot mend the guide. The ELBO is a bound all the same."
    )
    drawing = pictures.histogram(k.tolist(), "Pareto k", TRUSTED)
    return [Exhibit("pareto", "How far to trust the guide", caption, drawing)]


def _has(data: Any, group: str) -> bool:
    return group in data.children if hasattr(data, "children") else group in data.groups()


def _settings(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    if manifest.get("kind") not in CONTENTS:
        return [(key, json.dumps(value)) for key, value in manifest.items()]
    rows = []
    for part, named in manifest.items():
        if isinstance(named, dict) and named.keys() == {"name", "settings"}:
            rows.append((part, named["name"]))
            rows += [(f"{part}: {key}", json.dumps(value)) for key, value in named["settings"].items()]
    rows += [(key, json.dumps(value)) for key, value in manifest["training"].items() if value is not None]
    rows += [("seed", str(manifest["seed"])), ("fingerprint", manifest["fingerprint"][:16])]
    return rows + list(manifest["versions"].items())


CONTENTS: dict[str, Callable[[Run], Content]] = {"recipe": _of_recipe, "control": policy_content}
"""What there is to say of a run, by the kind that its manifest says."""
