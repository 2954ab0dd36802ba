"""The commands that draw data: whole ones, and the missing part of some."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor

from pyrogen import language, pictures
from pyrogen.alphabet import Alphabet
from pyrogen.arguments import device_of, make_parser, parse
from pyrogen.card import accepted_columns, learned
from pyrogen.completion import MASKS, Completions, completion_rows, completions
from pyrogen.data import Unpaired
from pyrogen.distributions import Choice
from pyrogen.errors import UsageError
from pyrogen.evaluation import evaluating
from pyrogen.files import write_named
from pyrogen.loading import load
from pyrogen.programs import simulate
from pyrogen.recipe import Programs, Recipe
from pyrogen.result import Result, say
from pyrogen.runs import Run
from pyrogen.sampling import compile_steps, labels_in_turn, length_of, speed
from pyrogen.sounds import to_wav
from pyrogen.spec import DataSpec
from pyrogen.translation import in_rows, translations

__all__ = ["complete", "sample"]

COLUMNS = 10


def sample(arguments: Sequence[str]) -> Result:
    """Draw from a fitted model, or translate held-out data, into a .npz, .npy, .png, .txt or .wav file."""
    parser = make_parser("sample", str(sample.__doc__))
    parser.add_argument("run", type=str, help="the run directory")
    parser.add_argument("-n", "--number", type=int, default=None, help="how many (default: 100; one text)")
    parser.add_argument("--out", type=str, default=None, help="the file (default: RUN/samples.npz; .txt of text)")
    parser.add_argument("--label", type=int, default=None, help="of models given labels: which (default: all in turn)")
    parser.add_argument("--prefix", type=str, default="", help="of text: what it begins with")
    parser.add_argument("--length", type=int, default=None, help="of sequences; of text besides the prefix: 1000")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="below 1, elements that are probable are more so"
    )
    parser.add_argument("--top_k", type=int, default=None, help="choose among the so many most probable values alone")
    parser.add_argument("--top_p", type=float, default=None, help="or among those that make up this probability")
    parser.add_argument("--seconds", type=float, default=None, help="likewise as --length, of sounds")
    parser.add_argument(
        "--compile", type=str, default="auto", help="steps of the network: on, off, or auto: if it pays"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--json", action="store_true", help="print exactly one JSON object on stdout")
    options = parse(parser, arguments)
    run = Run.open(options["run"])
    recipe = Recipe.from_json(run.manifest)
    spec = DataSpec.from_json(run.manifest["spec"])
    out = Path(options["out"] or run.path / ("samples.npz" if spec.symbols is None else "samples.txt"))
    if out.suffix not in WRITERS:
        raise UsageError(f"samples are written to {', '.join(WRITERS)} files, found {out.name!r}")
    number = options["number"] or (100 if spec.symbols is None else 1)
    if number < 1 or options["number"] == 0:
        raise UsageError(f"the number of samples must be at least 1, found {options['number']}")
    if out.suffix == ".wav" and spec.sample_rate is None:
        raise UsageError(f"only sounds are written to .wav, and {spec.name} are none; use .npz")
    options["length"] = length_of(spec, options["length"], options["seconds"])
    programs = load(run, device=device_of(options["device"]))
    compile_steps(options["compile"], programs.model, spec, number, options["length"])
    pyro.set_rng_seed(options["seed"])
    begin = time.perf_counter()
    draws = {name: value.cpu() for name, value in _draws(recipe, run, spec, programs, number, options).items()}
    if spec.sample_rate is not None:
        say(speed(number, draws["x"].shape[-1], spec.sample_rate, time.perf_counter() - begin))
    write_named(out, WRITERS[out.suffix](draws, spec))
    values: dict[str, Any] = {"out": str(out), "sites": {name: list(value.shape) for name, value in draws.items()}}
    lines = [f"{out}: {number:,} draws"]
    if spec.symbols is not None and "x" in draws:
        say(lines[0])
        values["texts"] = lines = [Alphabet(spec.symbols).decode(row) for row in draws["x"]]
    return Result(values, lines, options["json"])


def _draws(
    recipe: Recipe, run: Run, spec: DataSpec, programs: Programs, number: int, options: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Draw data by site; of a translation, the first held-out data of both domains, and what they become."""
    choice = Choice(options["temperature"], options["top_k"], options["top_p"]).checked()
    if language.is_reader(programs.model, spec):
        length = options["length"] or language.WRITTEN
        return {"x": language.write(programs.model, spec, number, length, options["prefix"], choice)}
    if options["prefix"]:
        raise UsageError(f"{recipe.model.name} does not write on from a prefix: leave --prefix out")
    if hasattr(programs.model, "choice"):
        vars(programs.model)["choice"] = choice
    elif choice != Choice():
        raise UsageError(
            f"{recipe.model.name} does not draw element by element: leave --temperature, --top-k and --top-p out"
        )
    if recipe.data_b is not None:
        dataset = recipe.dataset_of(run.manifest)
        assert isinstance(dataset, Unpaired)
        split = "test" if dataset.num_data("test") else "train"
        return translations(*programs, dataset, split, number)._asdict()
    if not accepted_columns(programs.model, ["size"]):
        raise UsageError(
            f"{recipe.model.name} does not draw data: it models something given them (its model has no "
            f"argument `size`). Use `pyrogen evaluate`, or call the model that pyrogen.load returns with data of yours"
        )
    if options["length"] is not None and not accepted_columns(programs.model, ["length"]):
        raise UsageError(f"{recipe.model.name} draws data of one shape: leave --length out")
    of: dict[str, Any] = {} if options["length"] is None else {"length": options["length"]}
    labels = _labels(programs, spec, number, options["label"])
    with evaluating(*programs):
        return simulate(learned(*programs, spec), size=number, **of, **labels) | labels


def _labels(programs: Programs, spec: DataSpec, number: int, label: int | None) -> dict[str, Tensor]:
    """Return what a model that draws data given their labels is given: one label, or all in turn."""
    labels = labels_in_turn(programs.model, spec, number)
    if label is None:
        return labels
    if not labels:
        raise UsageError("the model draws data without regard to labels: leave --label out")
    assert spec.num_classes is not None
    if not 0 <= label < spec.num_classes:
        raise UsageError(f"--label must be from 0 to {spec.num_classes - 1}, found {label}")
    return {"y": torch.full_like(labels["y"], label)}


def _npz(draws: Mapping[str, Tensor], spec: DataSpec) -> bytes:
    arrays: dict[str, Any] = {name: value.numpy() for name, value in draws.items()}
    return _saved(partial(np.savez_compressed, **arrays))


def _npy(draws: Mapping[str, Tensor], spec: DataSpec) -> bytes:
    if "x" not in draws:
        raise UsageError(f"there are several arrays ({', '.join(draws)}), and .npy holds one; use .npz")
    return _saved(lambda file: np.save(file, draws["x"].numpy(), allow_pickle=False))


def _png(draws: Mapping[str, Tensor], spec: DataSpec) -> bytes:
    if len(spec.shape) != 3:
        raise UsageError(f"only images can be written to .png, and these data have shape {spec.shape}; use .npz")
    if "x" in draws:
        return pictures.image_grid(draws["x"], spec, columns=max(1, round(len(draws["x"]) ** 0.5))).light
    rows = [in_rows(COLUMNS, *(draws[name] for name in names)) for names in (("a", "a_to_b"), ("b", "b_to_a"))]
    columns = min(COLUMNS, len(draws["a"]), len(draws["b"]))
    return pictures.image_grid(torch.cat(rows), spec, columns).light


def _saved(save: Callable[[BytesIO], Any]) -> bytes:
    buffer = BytesIO()
    save(buffer)
    return buffer.getvalue()


def _wav(draws: Mapping[str, Tensor], spec: DataSpec) -> bytes:
    return to_wav(draws["x"], spec)


def _txt(draws: Mapping[str, Tensor], spec: DataSpec) -> bytes:
    if spec.symbols is None or "x" not in draws:
        raise UsageError("only text can be written to .txt; use .npz")
    return f"\n{'-' * 40}\n".join(Alphabet(spec.symbols).decode(row) for row in draws["x"]).encode()


WRITERS: dict[str, Callable[[Mapping[str, Tensor], DataSpec], bytes]] = {
    ".npz": _npz,
    ".npy": _npy,
    ".png": _png,
    ".txt": _txt,
    ".wav": _wav,
}


def complete(arguments: Sequence[str]) -> Result:
    """Draw, or search for, the missing part of held-out data, given the rest, into a .npz or .png file."""
    parser = make_parser("complete", str(complete.__doc__))
    parser.add_argument("run", type=str, help="the run directory")
    parser.add_argument("--mask", type=str, default=None, help=f"what is missing: {', '.join(MASKS)} (default: bottom)")
    parser.add_argument("-n", "--number", type=int, default=8, help="how many data")
    parser.add_argument(
        "--draws", type=int, default=None, help="how often each is completed (default: 3; of implicit models, once)"
    )
    parser.add_argument(
        "--sweeps", type=int, default=None, help="Gibbs sweeps, or rounds of a guide after the first (default: 5)"
    )
    parser.add_argument(
        "--starts", type=int, default=None, help="of implicit models: from how many the search begins (default: 16)"
    )
    parser.add_argument(
        "--noise",
        type=float,
        default=None,
        help="of implicit models: how near to what is known to come, in units of the data (default: by their range)",
    )
    parser.add_argument("--split", type=str, default="test", help="train, validation or test")
    parser.add_argument("--out", type=str, default=None, help="the file (default: RUN/completions.png, or .npz)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws, and of random masks")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--json", action="store_true", help="print exactly one JSON object on stdout")
    options = parse(parser, arguments)
    run = Run.open(options["run"])
    recipe = Recipe.from_json(run.manifest).on(device_of(options["device"]))
    spec = DataSpec.from_json(run.manifest["spec"])
    is_image = len(spec.shape) == 3
    out = Path(options["out"] or run.path / ("completions.png" if is_image else "completions.npz"))
    if out.suffix != ".npz" and not (is_image and out.suffix == ".png"):
        written = "files, images to .png as well" if not is_image else "or .png files"
        raise UsageError(f"completions are written to .npz {written}, found {out.name!r}")
    dataset = recipe.dataset_of(run.manifest)
    programs = load(run, device=recipe.device)
    if programs.guide is not None and recipe.objective_of(dataset, programs).by_samples:
        raise UsageError(
            f"{recipe.objective.name} compared draws with data, and did not fit the density that data are completed "
            f"by: fit {recipe.model.name} by elbo or iwae"
        )
    pyro.set_rng_seed(options["seed"])
    options["mask"] = options["mask"] or ("bottom" if len(spec.shape) > 1 else "right")
    of = {name: options[name] for name in ("split", "mask", "number", "draws", "sweeps", "seed", "starts", "noise")}
    found = completions(programs, dataset, **of)
    write_named(out, completion_rows(found, spec).light if out.suffix == ".png" else _npz(found.arrays(), spec))
    values = {
        "out": str(out),
        "method": found.method,
        "exact": found.method == "exact",
        "shape": list(found.completed.shape),
    }
    if found.figures:
        values["metrics"] = {name: figure.to_json() for name, figure in found.figures.items()}
    if found.method == "latent-search":
        values["beyond_nearest_training"] = found.beyond
    return Result(values, _said(out, found), options["json"])


def _said(out: Path, found: Completions) -> list[str]:
    """Say how data were completed, and, where that was by a search, how near it has come."""
    how = {
        "exact": "draws given the rest",
        "gibbs": f"draws near those given the rest, {found.rounds} sweeps",
        "posterior": f"draws near those given the rest, of latents by the guide, weighed, {found.rounds} "
        f"round{'s' * (found.rounds > 1)}",
        "latent-search": "by latent search: the best optimum that was found, and no draw of a posterior",
    }
    lines = [f"{out}: {len(found.completed)} x {len(found.x)} {how[found.method]}"]
    if found.method == "latent-search":
        lines += _said_of_search(found)
    if found.method == "posterior":
        lines += _said_of_weights(found)
    return lines


def _said_of_weights(found: Completions) -> list[str]:
    """Say how many particles draws were taken of, as it were."""
    average, least = found.figures.values()
    lines = [f"weights are worth {average.value:.1f} {average.unit} on average, {least.value:.1f} at least"]
    if found.few:
        lines.append(
            f"they are worth less than 10 for each draw of {found.few} of {len(found.x)}: draws of these are alike, "
            f"and near what the guide says; fewer --draws or more --sweeps may do, or a guide that is nearer to the "
            f"posterior"
        )
    return lines


def _said_of_search(found: Completions) -> list[str]:
    """Say how near a search has come to what is known."""
    unknown = int(found.missing.flatten(1).all(1).sum())
    lines = [f"nothing is known of {unknown} of {len(found.x)}, of which there is no error"] if unknown else []
    if not found.figures:
        return lines
    here, start, closest, nearest = (f"{figure.value:.4g}" for figure in found.figures.values())
    lines.append(
        f"root mean squared error on the known elements, in the units of the data: {here}; at the best of the random "
        f"starts {start}, the least without regard to how likely latents are {closest}, of the nearest other training "
        f"datum {nearest}"
    )
    if found.beyond:
        lines.append(
            f"another training datum is nearer to {found.beyond} of {len(found.x) - unknown} than the least: the "
            f"generator may be unable to make these, as where it has dropped a mode, and what it says of their missing "
            f"part is of others then; more --starts may come nearer"
        )
    return lines
