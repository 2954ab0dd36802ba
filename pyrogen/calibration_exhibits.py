"""What a report shows of calibration: reliability diagrams, histograms of ranks, statistics of replicates."""

from collections.abc import Callable

from pyrogen import evaluation
from pyrogen.axis import Fitted
from pyrogen.calibration_axis import BINS, checks, forecasts, ranks
from pyrogen.calibration_pictures import check_histograms, rank_band, rank_histograms, reliability_diagram
from pyrogen.data import Dataset
from pyrogen.errors import PyrogenError
from pyrogen.evaluation import Forecasts
from pyrogen.exhibits import Exhibit
from pyrogen.inference import Objective
from pyrogen.recipe import Programs

__all__ = ["calibration_exhibits"]

BATCH = 500


def calibration_exhibits(programs: Programs, dataset: Dataset, objective: Objective) -> list[Exhibit]:
    """Draw what there is to see of calibration on held-out data; nothing where there are none."""
    split = next((split for split in ("test", "validation") if dataset.num_data(split)), None)
    if split is None:
        return []
    fitted = Fitted(*programs, dataset, split, BATCH)
    found: list[Exhibit] = []
    for exhibits in (lambda: _forecasts(fitted, objective), lambda: _ranks(fitted), lambda: _checks(fitted)):
        found += _or_none(exhibits)
    return found


def _or_none(exhibits: Callable[[], list[Exhibit]]) -> list[Exhibit]:
    """Leave out what the report card says why there is no figure of."""
    try:
        return exhibits()
    except PyrogenError:
        return []


def _forecasts(fitted: Fitted, objective: Objective) -> list[Exhibit]:
    return [_reliability(name, said) for name, said in forecasts(fitted, objective).items()]


def _reliability(figure: str, said: Forecasts) -> Exhibit:
    error, ideal = evaluation.forecast_calibration(said)
    name = figure.replace("ece", "reliability")
    of = (
        "the most probable label" if figure == "label_ece" else "a value being of the first of two samples, by a critic"
    )
    caption = (
        f"How often {of} came true, by how probable it was said to be: {len(said.outcome):,} held-out forecasts. "
        f"Bars: where 95% of the points of right forecasts lie. The calibration error is {error.value:.3f}; that of a "
        f"perfect forecaster who says the same is {ideal.value:.3f} ± {ideal.stderr or 0:.3f}."
    )
    return Exhibit(name, "Reliability of forecasts", caption, reliability_diagram(said))


def _ranks(fitted: Fitted) -> list[Exhibit]:
    found = ranks(fitted)
    if found is None:
        return []
    size = len(next(iter(found.ranks.values())))
    low, high = rank_band(size, BINS)
    caption = (
        f"Ranks of what the model drew among what the guide draws for the data that came of it, {size} simulations; of "
        f"{len(found.ranks)} ranks the worst. All bars of uniform ranks are in the band, {low} to {high}, with a "
        "probability of 99%. A valley is a guide that is too sure, a hill one that is not sure enough, a slope one "
        "that is off."
    )
    return [Exhibit("ranks", "Simulation-based calibration", caption, rank_histograms(found, BINS))]


def _checks(fitted: Fitted) -> list[Exhibit]:
    found = checks(fitted)
    if not found:
        return []
    count = len(next(iter(found.values())).replicated)
    caption = (
        f"Statistics of {count} replicates of held-out data, and, as a line, of the data themselves; p is the share of "
        "replicates that have more. Where the guide draws the latents given the same data, these are used twice, and p "
        "of a right model is nearer to 0.5 than by chance."
    )
    return [Exhibit("replicates", "Replicates of the data", caption, check_histograms(found))]
