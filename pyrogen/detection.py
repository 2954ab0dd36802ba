"""Data that fitted programs find unusual: the command that ranks them."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor

from pyrogen import evaluation
from pyrogen.arguments import device_of, make_parser, parse
from pyrogen.errors import UsageError
from pyrogen.evaluation import Estimate, auroc
from pyrogen.files import write_named
from pyrogen.result import Result
from pyrogen.scorers import Scorer, data_to_rank, held_out, scorer

__all__ = ["SCORES", "Panel", "outliers"]

SCORES = ("likelihood", "ratio", "typicality", "waic")
BACKGROUND = "the same model fitted with --mutate 0.2, say"
ENSEMBLE = "the same model fitted with another --seed and the same --data-seed"


class Panel(NamedTuple):
    """The fits that score data.

    Attributes:
        model: whose data are inliers.
        background: fitted to mutated data; ``None`` without one.
        ensemble: other fits of the model; may be empty.
        usual: log-densities of held-out data, which typical ones are near to; empty without such data.
        num_particles: of importance-weighted bounds.
    """

    model: Scorer
    background: Scorer | None
    ensemble: Sequence[Scorer]
    usual: Tensor
    num_particles: int

    def scores(self, x: Tensor) -> dict[str, Tensor]:
        """Return all scores that can be had of data, by name, in the order of :data:`SCORES`; see there.

        Args:
            x: shape ``(data, *event)``.

        Returns:
            Scores of shape ``(data,)``, in nats, higher for outliers.
        """
        log_p = self.model.log_p(x, self.num_particles)
        found = {"likelihood": evaluation.negative_log_likelihood(log_p)}
        if self.background is not None:
            found["ratio"] = evaluation.likelihood_ratio(log_p, self.background.log_p(x, self.num_particles))
        if len(self.usual):
            found["typicality"] = evaluation.typicality(log_p, self.usual)
        if self.ensemble:
            others = [other.log_p(x, self.num_particles) for other in self.ensemble]
            found["waic"] = evaluation.watanabe_akaike(torch.stack([log_p, *others]))
        return found


def outliers(arguments: Sequence[str]) -> Result:
    """Rank data by how unusual a fitted model finds them, and tell how well that parts them from its own."""
    parser = make_parser("outliers", str(outliers.__doc__))
    parser.add_argument("run", type=str, help="the run directory")
    parser.add_argument("data", type=str, help="a data set of `pyrogen list`, or a path: what is taken as outliers")
    parser.add_argument("--background", type=str, default=None, help=f"a run of a background model: {BACKGROUND}")
    parser.add_argument("--ensemble", type=str, nargs="+", default=[], help=f"other runs: {ENSEMBLE}")
    parser.add_argument(
        "--score",
        type=str,
        default=None,
        help=f"to rank by: {', '.join(SCORES)} (default: what is given for it: waic, ratio, else likelihood)",
    )
    parser.add_argument("--split", type=str, default="test", help="whose data are inliers: train, validation or test")
    parser.add_argument("--num_particles", type=int, default=100, help="of the importance-weighted bound")
    parser.add_argument("-n", "--number", type=int, default=10, help="how many of the most outlying are printed")
    parser.add_argument("--out", type=str, default=None, help="a .csv file of all scores")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--json", action="store_true", help="print exactly one JSON object on stdout")
    options = parse(parser, arguments)
    _check(options)
    device, split = device_of(options["device"]), options["split"]
    model = scorer(options["run"], device)
    background = None if options["background"] is None else scorer(options["background"], device, model)
    ensemble = [scorer(path, device, model, is_member=True) for path in options["ensemble"]]
    pyro.set_rng_seed(model.recipe.seed)
    inliers = held_out(model, split)
    data = data_to_rank(options["data"], model, split)
    usual = model.log_p(_others(model, split), options["num_particles"])
    panel = Panel(model, background, ensemble, usual, options["num_particles"])
    ranked = panel.scores(data.x)
    score = _chosen(options["score"], ranked)
    known = {} if data.is_own else panel.scores(inliers)
    figures = {f"auroc_{name}": auroc(known[name], ranked[name]) for name in known}
    order = ranked[score].argsort(descending=True, stable=True)[: options["number"]]
    most = [{"row": int(i), "score": float(ranked[score][i])} for i in order]
    values: dict[str, Any] = {"metrics": {n: e.to_json() for n, e in figures.items()}, "score": score, "split": split}
    values |= {"num_data": len(data.x), "num_inliers": 0 if data.is_own else len(inliers), "most_outlying": most}
    if options["out"] is not None:
        _write(Path(options["out"]), {"inlier": known, "ranked": ranked})
        values["out"] = options["out"]
    return Result(values, _lines(model, data.of, values, figures), options["json"])


def _check(options: Mapping[str, Any]) -> None:
    score, out = options["score"], options["out"]
    if score not in (None, *SCORES):
        raise UsageError(f"unknown score {score!r}: expected one of {', '.join(SCORES)}")
    if score == "ratio" and options["background"] is None:
        raise UsageError(f"the ratio is to a background model: give --background RUN, {BACKGROUND}")
    if score == "waic" and not options["ensemble"]:
        raise UsageError(f"waic is of several fits: give --ensemble RUN ..., {ENSEMBLE}")
    for name in ("num_particles", "number"):
        if options[name] < 1:
            raise UsageError(f"{name} must be at least 1, found {options[name]}")
    if out is not None and Path(out).suffix != ".csv":
        raise UsageError(f"scores are written to .csv files, found {out!r}")
    paths = [options["run"], *([options["background"]] if options["background"] else []), *options["ensemble"]]
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise UsageError(f"the same run is given twice: {', '.join(paths)}")


def _chosen(score: str | None, found: Iterable[str]) -> str:
    """Return the score to rank by: what was asked for, or else what runs were given for."""
    if score == "typicality" and score not in found:
        raise UsageError(
            "typicality is a distance from the mean over held-out data that are not the inliers, and the run has none: "
            "fit with --validation above 0 and leave --split at test"
        )
    return score or next(name for name in ("waic", "ratio", "likelihood") if name in found)


def _others(model: Scorer, split: str) -> Tensor:
    """Return held-out data that are not the split's, which may be none."""
    return model.dataset.eval_columns("test" if split == "validation" else "validation")["x"]


def _write(out: Path, found: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write a row for each datum: whether it is an inlier or was ranked, its number, and its scores."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(found["ranked"])
    writer.writerow(["set", "row", *names])
    for part, scores in found.items():
        if scores:
            columns = (scores[name].tolist() for name in names)
            writer.writerows([part, i, *row] for i, row in enumerate(zip(*columns, strict=True)))
    write_named(out, text.getvalue().encode())


def _lines(model: Scorer, of: str, values: Mapping[str, Any], figures: Mapping[str, Estimate]) -> list[str]:
    """Say what was compared with what, how well scores part them, and which data are the most outlying."""
    if not figures:
        lines = [f"{values['num_data']:,} data are the run's own, {of}: nothing to part them from"]
    else:
        own = f"{values['num_inliers']:,} {values['split']} data of {model.dataset.name}"
        lines = [f"inliers: {own}; taken as outliers: all {values['num_data']:,} {of}", ""]
        lines.append(f"{'score':<12} {'AUROC':>8} {'± s.e.':>8}  probability that an outlier scores higher")
        for name, estimate in figures.items():
            stderr = "" if estimate.stderr is None else f"{estimate.stderr:.4f}"
            lines.append(f"{name.removeprefix('auroc_'):<12} {estimate.value:>8.4f} {stderr:>8}")
    lines += ["", f"most outlying by {values['score']}:", f"{'row':>12} {'nats':>12}"]
    lines += [f"{datum['row']:>12} {datum['score']:>12.4f}" for datum in values["most_outlying"]]
    return lines
