"""What a report shows of fitted programs: samples, reconstructions, paths through the latent space, neighbours."""

from typing import Any, NamedTuple

import torch
from pyro import poutine
from torch import Tensor

from pyrogen import pictures
from pyrogen.card import accepted_columns, learned
from pyrogen.data import Corpus, Dataset, Text, Unpaired
from pyrogen.distributions import is_implicit
from pyrogen.pictures import Drawing
from pyrogen.programs import simulate
from pyrogen.recipe import Programs
from pyrogen.sampling import labels_in_turn
from pyrogen.sites import Generating, Program
from pyrogen.sound_pictures import sound_rows
from pyrogen.text_pictures import passage, surprise_map
from pyrogen.topic_pictures import intertopic_map, word_bars
from pyrogen.topics import Topics
from pyrogen.translation import in_rows, translations

__all__ = ["Exhibit", "decode", "exhibits", "loss_curves", "text_exhibits", "topic_exhibits"]

COLUMNS = 10
NEIGHBOUR_ROWS = 10_000

HEARD, LONGEST = 3, 16_000
"""How many sounds are shown, and as many draws; how many samples one is drawn of, if that can be chosen."""


class Exhibit(NamedTuple):
    """A picture and what it says.

    Attributes:
        name: its file's name, without the suffix.
        title: a heading.
        caption: what is to be seen.
        drawing: the picture, for light and for dark pages.
    """

    name: str
    title: str
    caption: str
    drawing: Drawing


def exhibits(programs: Programs, dataset: Dataset | Unpaired) -> list[Exhibit]:
    """Draw all that applies to programs of the catalogue; nothing for a model that does not generate by itself."""
    if isinstance(dataset, Unpaired):
        return _translations(programs, dataset)
    model, guide = programs
    model = learned(model, guide, dataset.spec)
    if accepted_columns(model, ["x", "size"]) != ["x", "size"]:
        return []  # it does not generate
    split = "test" if dataset.num_data("test") else "train"
    held_out = dataset.eval_columns(split)
    if dataset.spec.sample_rate is not None:
        shown = _sounds(model, held_out["x"], dataset)
    elif dataset.spec.symbols is not None:
        shown = []  # characters' numbers say nothing to the eye
    elif len(dataset.spec.shape) != 3:
        shown = [_cloud(model, held_out["x"])]
    else:
        labels = labels_in_turn(model, dataset.spec, 10 * COLUMNS)
        of_labels = f", given labels 0 to {int(labels['y'].max())} in turn" if labels else ""
        samples = simulate(model, size=10 * COLUMNS, **labels)["x"].cpu()
        shown = [
            _images("samples", "Samples", f"Drawn from the model, without data{of_labels}.", samples, dataset),
            _neighbours(samples[:COLUMNS], dataset),
        ]
    if guide is None:
        if len(dataset.spec.shape) == 3 and is_implicit(_site(model, "x")["fn"]):
            shown.append(_walks(model, dataset))
        return shown
    z, spread = _encoded(guide, held_out["x"][:1000])
    if z is None or z.shape[-1] < 2:
        return shown
    shown.append(_latents(z, spread, held_out.get("y")))
    if len(dataset.spec.shape) == 3:
        x = held_out["x"]
        shown[1:1] = [_reconstructions(programs, x[:COLUMNS], dataset)]
        shown += [_interpolations(model, z, dataset), _traversals(model, z[0], spread, dataset)]
    return shown


def _translations(programs: Programs, dataset: Unpaired) -> list[Exhibit]:
    """Show held-out data of either domain, what they become, and what becomes of that."""
    found = translations(*programs, dataset, "test" if dataset.num_data("test") else "train", 500)
    shown = []
    for source, target, there, around in (
        ("a", "b", found.a_to_b, found.a_to_a),
        ("b", "a", found.b_to_a, found.b_to_b),
    ):
        data, like = getattr(found, source), getattr(found, target)
        name, title = f"{source}_to_{target}", f"From {source} to {target} and back"
        if len(dataset.spec.shape) == 3:
            rows = in_rows(COLUMNS, *(values[:COLUMNS] for values in (data, there, around)))
            caption = f"Top: held-out data of {source}. Below: translated to {target}, and from there back to {source}."
            shown.append(_images(name, title, caption, rows, dataset))
        else:
            groups = {f"data of {target}": like, f"translations of {source}": there}
            caption = f"The first two values of held-out data of {target}, and of what those of {source} become."
            shown.append(Exhibit(name, title, caption, pictures.scatter(groups)))
    return shown


def topic_exhibits(topics: Topics, corpus: Corpus) -> list[Exhibit]:
    """Draw topics' words, and how far topics are apart."""
    bars = "The most probable words of each topic, the largest topic first, with its share of the training words."
    places = (
        "Topics that lie close have words in common (Jensen-Shannon distance, by multidimensional scaling); areas are "
        "shares of the training words."
    )
    return [
        Exhibit("topics", "Topics", bars, word_bars(topics, corpus)),
        Exhibit("intertopic_map", "How far topics are apart", places, intertopic_map(topics, corpus)),
    ]


def _sounds(model: Program, x: Tensor, dataset: Dataset) -> list[Exhibit]:
    """Show held-out sounds, far apart in the data, and draws."""
    spec = dataset.spec
    far_apart = x[torch.linspace(0, len(x) - 1, HEARD).long()]
    rows = "Each row: the wave, and its spectrogram, down to 70 dB below the loudest."
    can_be_short = getattr(getattr(model, "network", None), "has_any_length", False)
    short = {"length": LONGEST} if can_be_short and spec.num_dims > LONGEST else {}
    samples = simulate(model, size=HEARD, **short)["x"]
    return [
        Exhibit("samples", "Samples", f"Drawn from the model, without data. {rows}", sound_rows(samples, spec)),
        Exhibit("held_out", "Held-out sounds", rows, sound_rows(far_apart, spec)),
    ]


def text_exhibits(model: Program, text: Text) -> list[Exhibit]:
    """Draw what surprises a model of text."""
    signs, bits = passage(model, text)
    caption = (
        f"The beginning of the held-out text: the stronger a character's ground, the more bits it took, given those "
        f"before it; {float(bits.mean()):.2f} on average here, 8 and more in full colour."
    )
    return [Exhibit("surprises", "What surprises it", caption, surprise_map(signs, bits))]


def _images(name: str, title: str, caption: str, images: Tensor, dataset: Dataset | Unpaired) -> Exhibit:
    scale = max(1, 72 // dataset.spec.shape[-1])
    return Exhibit(name, title, caption, pictures.image_grid(images, dataset.spec, COLUMNS, scale))


def _cloud(model: Program, x: Tensor) -> Exhibit:
    groups = {"held-out data": x[:500], "samples": simulate(model, size=500)["x"]}
    caption = "The first two values of held-out data and of draws from the model."
    return Exhibit("samples", "Samples", caption, pictures.scatter(groups))


def _reconstructions(programs: Programs, x: Tensor, dataset: Dataset) -> Exhibit:
    guide_trace = poutine.trace(programs.guide).get_trace(x)
    replayed = Generating()(poutine.replay(programs.model, trace=guide_trace))
    site = poutine.trace(replayed).get_trace(x).nodes["x"]
    rows = torch.cat([x, pictures.expected(site["fn"]), site["value"]])
    caption = "Top: held-out data. Middle: the mean of p(x | z) at one z drawn from the guide. Bottom: a draw from it."
    return _images("reconstructions", "Reconstructions", caption, rows, dataset)


def _neighbours(samples: Tensor, dataset: Dataset) -> Exhibit:
    train = dataset.eval_columns("train")["x"][:NEIGHBOUR_ROWS]
    nearest = torch.cdist(samples.flatten(1), train.flatten(1)).topk(3, largest=False).indices
    rows = torch.cat([samples, *(train[nearest[:, rank]] for rank in range(3))])
    among = "" if len(train) < NEIGHBOUR_ROWS else f" among {NEIGHBOUR_ROWS:,}"
    caption = (
        f"Top: samples. Below each: the three training images{among} that are nearest to it in Euclidean distance. "
        "A sample that equals one was memorised."
    )
    return _images("neighbours", "Nearest training images", caption, rows, dataset)


def _encoded(guide: Program, x: Tensor) -> tuple[Tensor | None, Tensor]:
    """Draw z twice for each datum; return one draw, and how much each latent variable varies within a datum."""
    draws = [poutine.trace(guide).get_trace(x).nodes.get("z") for _ in range(2)]
    if draws[0] is None or draws[1] is None:
        return None, torch.zeros(0)
    first, second = draws[0]["value"], draws[1]["value"]
    return first, (first - second).square().mean(0) / 2


def _latents(z: Tensor, spread: Tensor, labels: Tensor | None) -> Exhibit:
    pair = spread.argsort()[:2]
    points = z[:, pair]
    groups = {"z": points}
    if labels is not None:
        y = labels[: len(z)]
        groups = {str(label): points[y == label] for label in y.unique().tolist()}
    axes = [f"latent variable {i}" for i in pair.tolist()]
    colour = "" if labels is None else ", coloured by label"
    caption = f"Held-out data in the two latent variables that the guide is surest of, one draw each{colour}."
    return Exhibit("latents", "Latent variables", caption, pictures.scatter(groups, *axes))


def decode(model: Program, z: Tensor) -> Tensor:
    """Return the mean of p(x | z) for each row of z."""
    return pictures.expected(_generated(model, z)["fn"])


def _generated(model: Program, z: Tensor) -> dict[str, Any]:
    """Return the site of the data that a model draws for each row of z."""
    # The condition is outside: within, Generating would draw the site that it fixes.
    given = poutine.condition(Generating()(model), data={"z": z})
    return poutine.trace(given).get_trace(size=len(z)).nodes["x"]


def _interpolations(model: Program, z: Tensor, dataset: Dataset) -> Exhibit:
    steps = torch.linspace(0, 1, COLUMNS, device=z.device)[:, None]
    ends = [(z[2 * i], z[2 * i + 1]) for i in range(min(5, len(z) // 2))]
    paths = torch.cat([start + steps * (end - start) for start, end in ends])
    caption = "Each row: the mean of p(x | z) on a straight line between the latent draws of two held-out data."
    return _images("interpolations", "Interpolations", caption, decode(model, paths), dataset)


def _site(model: Program, name: str) -> dict[str, Any]:
    return poutine.trace(model).get_trace(size=1).nodes[name]


def _walks(model: Program, dataset: Dataset) -> Exhibit:
    """Interpolate between draws of the prior, on a great circle: where high-dimensional normal noise is."""
    start, end = (simulate(model, size=5)["z"] for _ in range(2))
    angles = torch.linspace(0, torch.pi / 2, COLUMNS, device=start.device)
    paths = torch.cat([angles.cos()[:, None] * a + angles.sin()[:, None] * b for a, b in zip(start, end, strict=True)])
    images = _generated(model, paths)["value"].cpu()
    caption = "Each row: what the model makes of the noise on a quarter of a circle between two draws of it."
    return _images("interpolations", "Interpolations", caption, images, dataset)


def _traversals(model: Program, z: Tensor, spread: Tensor, dataset: Dataset) -> Exhibit:
    chosen = spread.argsort()[:6]
    rows = z.repeat(len(chosen), COLUMNS, 1)
    for row, dim in zip(rows, chosen.tolist(), strict=True):
        row[:, dim] = torch.linspace(-2.5, 2.5, COLUMNS, device=z.device)
    numbers = ", ".join(map(str, chosen.tolist()))
    caption = (
        f"Each row: one latent variable (number {numbers}) goes from -2.5 to 2.5 while the others stay where one "
        "held-out datum puts them."
    )
    return _images("traversals", "Latent traversals", caption, decode(model, rows.flatten(0, 1)), dataset)


def loss_curves(metrics: list[dict[str, Any]], unit: str = "loss") -> list[Exhibit]:
    """Draw the training loss, in a unit, and the validation figure on axes of its own."""
    found = []
    if any(row.get("loss") is not None for row in metrics):
        caption = "The objective on training batches: lower is better."
        found.append(
            Exhibit("loss", "Training loss", caption, pictures.curves({"loss": _points(metrics, "loss")}, unit))
        )
    if any(row.get("critic_loss") is not None for row in metrics):
        caption = "The critic's loss: where it stays far below that of a critic that guesses, the critic has won."
        points = {"critic loss": _points(metrics, "critic_loss")}
        found.append(Exhibit("critic", "Critic's loss", caption, pictures.curves(points, "loss")))
    scores = {key: _points(metrics, f"critic_{name}") for key, name in (("data", "real"), ("draws", "fake"))}
    if all(scores.values()):
        caption = "What the critic gives data and draws on average: where the two part for good, it has won."
        found.append(Exhibit("scores", "Critic's scores", caption, pictures.curves(scores, "score")))
    names = sorted({name for row in metrics for name in row if name.startswith("validation_")})
    if names:
        series = {name.removeprefix("validation_").replace("_", " "): _points(metrics, name) for name in names}
        caption = "On held-out data: higher is better. The best checkpoint is the one that is shown here."
        units = {
            "energy_distance": "energy",
            "completion_log_likelihood": "nats per word",
            "per_char": "nats per character",
        }
        unit = next((unit for end, unit in units.items() if names[0].endswith(end)), "nats per datum")
        drawing = pictures.curves(series, unit)
        found.append(Exhibit("validation", "Validation", caption, drawing))
    return found


def _points(metrics: list[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(row["step"], row[name]) for row in metrics if row.get(name) is not None]
