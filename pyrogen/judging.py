"""A page for blind judging: pairs of draws, left and right at random, and the key to them in a file of its own."""

import json
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pyro
import torch
from torch import Tensor

from pyrogen import language, pictures
from pyrogen.alphabet import Alphabet
from pyrogen.answers import Key
from pyrogen.card import accepted_columns, learned
from pyrogen.data import Dataset, Text, Unpaired, encode_wav
from pyrogen.errors import DataError, UsageError
from pyrogen.evaluation import evaluating
from pyrogen.files import write_named
from pyrogen.loading import load
from pyrogen.page import template
from pyrogen.programs import simulate
from pyrogen.recipe import Programs, Recipe
from pyrogen.runs import Run
from pyrogen.sampling import labels_in_turn, length_of
from pyrogen.sounds import amplitudes
from pyrogen.spec import DataSpec

__all__ = ["Judging", "write_judging"]

WRITTEN = 400
"""Characters of a text that is judged, where no other length is asked for."""

SENSES = {"image": "looks", "sound": "sounds", "text": "reads"}


class Judging(NamedTuple):
    """What is judged, and how.

    Attributes:
        pairs: how many.
        seed: of the draws, of their order, and of who is left.
        data: set draws of one run against held-out data, and not two runs' draws against each other.
        split: whose data.
        length: of sounds and texts, in elements, for models that draw any length.
        seconds: likewise, of sounds.
        question: what judges are asked; if not given, which is more like real data.
        device: where to draw.
    """

    pairs: int = 50
    seed: int = 0
    data: bool = False
    split: str = "test"
    length: int | None = None
    seconds: float | None = None
    question: str | None = None
    device: str = "cpu"


class Contender(NamedTuple):
    """A run whose draws are judged."""

    path: str
    run: Run
    recipe: Recipe
    spec: DataSpec

    @classmethod
    def open(cls, path: str | Path) -> "Contender":
        run = Run.open(path)
        return cls(str(path), run, Recipe.from_json(run.manifest), DataSpec.from_json(run.manifest["spec"]))


def write_judging(
    paths: Sequence[str | Path], out: str | Path = "judge.html", how: Judging | None = None
) -> tuple[Path, Path]:
    """Write a page that asks a person which of two draws is better, and the key that says whose they were.

    The page needs no network and names no run. Whose draw is left is a coin's choice, pair by pair, so that a judge who
    prefers a side prefers no run, and the test of the answers is exact. Models that draw data given labels are set
    against each other label by label, and against held-out data of the same label.

    Args:
        paths: two run directories on data of one kind: images, sounds or text; or one, where ``how.data``.
        out: the page, an ``.html`` file; the key is written beside it, as ``.key.json``.
        how: what is judged, and how; 50 pairs if not given.

    Returns:
        The paths of the page and of the key.

    Raises:
        UsageError: where there is nothing that a person could judge, the runs do not go together, or the key of another
            page is where this one's would be.
        DataError: where a run's draws are not finite.
    """
    how = how or Judging()
    page, beside = Path(out), key_path(out)
    contenders = [Contender.open(path) for path in paths]
    sense = _checked(contenders, how)
    programs = [load(contender.run, device=how.device) for contender in contenders]
    dataset = contenders[0].recipe.dataset_of(contenders[0].run.manifest) if how.data else None
    pyro.set_rng_seed(how.seed)  # after programs were built, which is by their own seeds
    held_out = {} if dataset is None or isinstance(dataset, Text) else _held_out(dataset, how)
    drawn = [_draws(*of, how, held_out.get("y")) for of in zip(contenders, programs, strict=True)]
    if isinstance(dataset, Text):
        drawn.append(_passages(dataset, how, drawn[0].shape[-1]))
    elif dataset is not None:
        drawn.append(held_out["x"])
    names = [contender.path for contender in contenders] + [f"{how.split} data"] * how.data
    for name, x in zip(names, drawn, strict=True):
        if not x.isfinite().all():
            raise DataError(f"{name}: {int((~x.isfinite()).flatten(1).any(1).sum())} of {how.pairs} are not finite")
    order, is_left = torch.randperm(how.pairs), torch.rand(how.pairs) < 0.5  # labels come in turn, and would be a cue
    shown = _shown(torch.cat([x[order] for x in _of_one_length(drawn)]), contenders[0].spec, sense)
    pairs = []
    for i, (a, b) in enumerate(zip(shown[: how.pairs], shown[how.pairs :], strict=True)):
        left, right = (a, b) if is_left[i] else (b, a)
        pairs.append({"pair": i + 1, "left": left, "right": right})
    name = sha256(json.dumps(pairs).encode()).hexdigest()[:16]
    key = Key(name, names[0], names[1], how.data, how.seed, tuple("a" if left else "b" for left in is_left))
    _refuse_to_destroy(beside, key.to_bytes())
    question = how.question
    if question is None:
        question = "One of the two is real. Which?" if how.data else f"Which {SENSES[sense]} more real?"
    html = template("judge.html").render(page=name, kind=sense, pairs=pairs, question=question)
    write_named(beside, key.to_bytes())  # first: a page without its key would be judged for nothing
    write_named(page, html.encode())
    return page, beside


def key_path(page: str | Path) -> Path:
    """Return where the key of a page is.

    Raises:
        UsageError: where the page is not an ``.html`` file.
    """
    if Path(page).suffix != ".html":
        raise UsageError(f"the page is an .html file, found {str(page)!r}")
    return Path(page).with_suffix(".key.json")


def _checked(contenders: Sequence[Contender], how: Judging) -> str:
    """Return which sense the draws are for, image, sound or text, and refuse what cannot be judged."""
    if len(contenders) != (1 if how.data else 2):
        raise UsageError(
            f"judging takes two runs, or one and --data true, which sets held-out data against its draws; found "
            f"{len(contenders)} and --data {str(how.data).lower()}"
        )
    if how.pairs < 2:
        raise UsageError(f"the number of pairs must be at least 2, found {how.pairs}")
    if how.question is not None and not how.question.strip():
        raise UsageError("the question is empty: say what judges are to choose by, or leave --question out")
    first, last = contenders[0], contenders[-1]
    if not how.data and first.run.path.resolve() == last.run.path.resolve():
        raise UsageError(f"the same run is given twice: {first.path}, {last.path}")
    for contender in contenders:
        sense = _sense(contender)
        length_of(contender.spec, how.length, how.seconds)
    looks = ("shape", "kind", "levels", "sample_rate", "symbols")
    if differ := [name for name in looks if getattr(first.spec, name) != getattr(last.spec, name)]:
        of = [", ".join(f"{name} {getattr(c.spec, name)}" for name in differ) for c in (first, last)]
        raise UsageError(
            f"judges would tell the runs apart by their data, of {of[0]} and of {of[1]}: fit both to the same --data, "
            f"with the same --pixels"
        )
    if first.recipe.data.name != last.recipe.data.name:
        names = first.recipe.data.name, last.recipe.data.name
        raise UsageError(f"the runs were fitted to different data, {names[0]} and {names[1]}: their draws are no pairs")
    return sense


def _sense(contender: Contender) -> str:
    spec, what = contender.spec, None
    if contender.recipe.data_b is not None:
        what = "a translation, whose draws are of given data"
    elif spec.kind == "counts":
        what = f"counts of {spec.shape[0]:,} words a document"
    elif spec.sample_rate is not None:
        return "sound"
    elif spec.symbols is not None:
        return "text"
    elif len(spec.shape) == 3:
        return "image"
    raise UsageError(
        f"{contender.path}: {spec.name} are {what or f'numbers of shape {spec.shape}'}, and no person can say "
        f"which look real. Judging is for images, sounds and text; `pyrogen evaluate {contender.path} --all` measures "
        f"the others"
    )


def _draws(contender: Contender, programs: Programs, how: Judging, y: Tensor | None) -> Tensor:
    """Return as many draws as there are pairs; of models given labels, of these, or else of all in turn."""
    spec = contender.spec
    length = length_of(spec, how.length, how.seconds)
    if language.is_reader(programs.model, spec):
        return language.write(programs.model, spec, how.pairs, length or WRITTEN).cpu()
    if not accepted_columns(programs.model, ["size"]):
        raise UsageError(f"{contender.path}: {contender.recipe.model.name} draws no data, it models what is given some")
    if length is not None and not accepted_columns(programs.model, ["length"]):
        raise UsageError(f"{contender.path}: {contender.recipe.model.name} draws data of one shape: leave --length out")
    of = {} if length is None else {"length": length}
    labels = labels_in_turn(programs.model, spec, how.pairs)
    if labels and y is not None:
        labels = {"y": y.to(labels["y"].device)}
    with evaluating(*programs):
        return simulate(learned(*programs, spec), size=how.pairs, **of, **labels)["x"].cpu()


def _held_out(dataset: Dataset | Unpaired, how: Judging) -> dict[str, Tensor]:
    """Choose data of a split at random, with their labels where they have such."""
    dataset.split(how.split)  # refuses one that there is not
    columns = dataset.eval_columns(how.split)
    chosen = _chosen(dataset, len(columns["x"]), how)
    return {name: values[chosen] for name, values in columns.items()}


def _passages(dataset: Text, how: Judging, length: int) -> Tensor:
    """Choose passages of a text at random that do not overlap."""
    dataset.split(how.split)
    numbers = dataset.texts[how.split]
    x = numbers[: len(numbers) // length * length].reshape(-1, length)
    return x[_chosen(dataset, len(x), how)]


def _chosen(dataset: Dataset | Unpaired, number: int, how: Judging) -> Tensor:
    if number < how.pairs:
        raise UsageError(
            f"{dataset.name} has {number:,} {how.split} data for {how.pairs:,} pairs: ask for fewer --pairs, or for "
            f"another --split"
        )
    return torch.randperm(number)[: how.pairs]


def _of_one_length(drawn: Sequence[Tensor]) -> list[Tensor]:
    """Cut sounds and texts, which may differ in their length, to that of the shorter."""
    shortest = min(x.shape[-1] for x in drawn)
    return [x[..., :shortest] for x in drawn]


def _shown(x: Tensor, spec: DataSpec, sense: str) -> list[str]:
    """Return what a page shows or plays of each draw: a text, or a ``data:`` address."""
    if sense == "text":
        alphabet = Alphabet(spec.symbols or ())
        return [alphabet.decode(row) for row in x]
    if sense == "image":
        return [drawing.data() for drawing in pictures.each_image(x, spec)]
    waves = (encode_wav(wave, spec.sample_rate or 1) for wave in amplitudes(x, spec))
    return [f"data:audio/wav;base64,{b64encode(wave).decode()}" for wave in waves]


def _refuse_to_destroy(path: Path, data: bytes) -> None:
    """Keep the key of a page that may be with judges already."""
    if path.exists() and path.read_bytes() != data:
        raise UsageError(
            f"{path} is the key of another page, whose answers could not be read without it: choose another --out, or "
            f"remove it if there are none"
        )
