"""A tree of state in, files out, verified.

A tree (see :mod:`pyrogen.trees`) is stored as safetensors plus JSON, never as a pickle, so that reading a file cannot
run code; and with the length and SHA-256 of every file, because no tensor format notices a flipped bit.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import safetensors.torch

from pyrogen.errors import FormatVersionError, MissingInputError
from pyrogen.files import SIZE_LIMIT, corrupt, read_file, staged, synchronise, write_synchronised
from pyrogen.trees import pack, unpack

__all__ = ["FORMAT_VERSION", "read_files", "read_folder", "seal", "sha256", "unseal", "write_folder"]

FORMAT_VERSION = 1
MANIFEST, TENSORS, SKELETON = "manifest.json", "state.safetensors", "state.json"


def write_folder(path: str | Path, tree: Any, extra: dict[str, bytes] | None, meta: dict[str, Any]) -> None:
    """Write a tree, further files and a manifest that vouches for all of them; replaces the folder if there is one.

    Args:
        path: the folder; its parent exists.
        tree: what :func:`pack` accepts.
        extra: plain file name to content.
        meta: plain JSON with string keys, kept in the manifest.

    Raises:
        InputOutputError: if the disk refuses; what was at ``path`` before is then still there, unharmed.
        TypeError, ValueError: if tree, meta or a file name cannot be stored.

    Example:
        >>> import tempfile, torch
        >>> folder = Path(tempfile.mkdtemp()) / "checkpoint"
        >>> write_folder(folder, {"w": torch.ones(2)}, None, {"step": 3})
        >>> read_folder(folder)
        ({'w': tensor([1., 1.])}, {'step': 3})
    """
    skeleton, tensors = pack(tree)
    files = {TENSORS: safetensors.torch.save(tensors), SKELETON: json.dumps(skeleton).encode()}
    for name, data in (extra or {}).items():
        if not _is_plain(name) or name in files:
            raise ValueError(f"{name!r} cannot be the name of a further file: expected a new, plain file name")
        files[name] = data
    listing = {name: {"bytes": len(data), "sha256": sha256(data)} for name, data in files.items()}
    files[MANIFEST] = seal("checkpoint", {"files": listing, "meta": meta})
    with staged(Path(path), is_folder=True) as stage:
        stage.mkdir()
        for name, data in files.items():
            write_synchronised(stage / name, data)
        synchronise(stage)


def read_folder(path: str | Path) -> tuple[Any, dict[str, Any]]:
    """Read what :func:`write_folder` wrote, if not a bit of it has changed.

    Returns:
        The tree, its tensors on the CPU, and the meta data.

    Raises:
        MissingInputError: if there is no such folder.
        FormatVersionError: if a newer pyrogen wrote it.
        CorruptCheckpointError: if anything is missing, damaged, or leads out of the folder.
        InputOutputError: if the disk refuses.

    Example:
        >>> read_folder("nowhere")
        Traceback (most recent call last):
        pyrogen.errors.MissingInputError: there is no folder nowhere
    """
    folder = Path(path)
    files, meta = read_files(folder)
    for name in (TENSORS, SKELETON):
        if name not in files:
            raise corrupt(folder / MANIFEST, f"it does not list {name}")
    data = files[TENSORS]
    header = int.from_bytes(data[:8], "little")
    if len(data) < 8 or header > len(data) - 8:
        raise corrupt(folder / TENSORS, f"it declares a header of {header} bytes and has {len(data)} bytes in all")
    try:
        return unpack(json.loads(files[SKELETON]), safetensors.torch.load(data)), meta
    except Exception as error:  # the parser's errors are of many, undocumented kinds; none of them may pass as a bug
        raise corrupt(folder, f"its state cannot be parsed ({error})") from error


def read_files(path: str | Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Read and verify all files that the manifest of a folder lists; errors as for :func:`read_folder`.

    Returns:
        Name to content, and the meta data. The bytes are the ones that were verified: nothing is read twice.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "checkpoint"
        >>> write_folder(folder, None, {"notes.txt": b"mind the gap"}, {})
        >>> read_files(folder)[0]["notes.txt"]
        b'mind the gap'
    """
    folder = Path(path)
    if not folder.is_dir():
        if os.path.lexists(folder):
            raise corrupt(folder, "it is not a folder")
        raise MissingInputError(f"there is no folder {folder}")
    manifest = unseal("checkpoint", read_file(folder / MANIFEST), folder / MANIFEST)
    listing, meta = manifest.get("files"), manifest.get("meta")
    if not isinstance(listing, dict) or not isinstance(meta, dict):
        raise corrupt(folder / MANIFEST, "it lacks the list of files or the meta data")
    files = {}
    for name, entry in listing.items():
        if not _is_plain(name):
            raise corrupt(folder / MANIFEST, f"it lists {name!r}; expected the plain name of a file in this folder")
        if not isinstance(entry, dict) or type(entry.get("bytes")) is not int:
            raise corrupt(folder / MANIFEST, f"it does not say how long {name} is")
        data = read_file(folder / name, entry["bytes"])
        if sha256(data) != entry.get("sha256"):
            raise corrupt(folder / name, f"its SHA-256 is {sha256(data)}; expected {entry.get('sha256')}")
        files[name] = data
    return files, meta


def seal(kind: str, content: dict[str, Any]) -> bytes:
    """Turn plain JSON into a manifest that notices any change to itself.

    A format name, a format version and the SHA-256 of everything else are added; :func:`unseal` takes them off.

    Raises:
        TypeError: if the content would come back different, as tuples, integer keys and NaN would.
        ValueError: if it is too large, or uses a name that the seal needs.

    Example:
        >>> print(seal("run", {"model": "vae"}).decode(), end="")  # doctest: +ELLIPSIS
        {
          "format": "pyrogen run",
          "format_version": 1,
          "model": "vae",
          "sha256": "..."
        }
    """
    body = {"format": f"pyrogen {kind}", "format_version": FORMAT_VERSION}
    if reserved := content.keys() & {*body, "sha256"}:
        raise ValueError(
            f"a {kind} manifest cannot hold {', '.join(sorted(reserved))}: the seal uses these names itself"
        )
    try:
        same = json.loads(json.dumps(content, allow_nan=False)) == content
    except (TypeError, ValueError) as error:
        raise TypeError(f"a {kind} manifest holds plain JSON only: {error}") from error
    if not same:
        raise TypeError(f"a {kind} manifest holds plain JSON only: string keys, and lists in place of tuples")
    body |= content
    data = _canonical(body | {"sha256": sha256(_canonical(body))})
    if len(data) > SIZE_LIMIT:
        raise ValueError(f"a {kind} manifest of {len(data)} bytes is above the limit of {SIZE_LIMIT}")
    return data


def unseal(kind: str, data: bytes, where: str | Path) -> dict[str, Any]:
    """Return the content of a manifest that is, byte for byte, what :func:`seal` made.

    Raises:
        FormatVersionError: if a newer pyrogen wrote it; looked at first, since all else may have changed by then.
        CorruptCheckpointError: if it was changed, or is of another kind; ``where`` is the name in the message.

    Example:
        >>> unseal("run", seal("run", {"seed": 1}), "manifest.json")
        {'seed': 1}
    """
    try:
        manifest = json.loads(data)
        version = manifest["format_version"]
        found = manifest["format"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise corrupt(where, f"it is not a pyrogen manifest ({error!r})") from error
    if type(version) is int and version > FORMAT_VERSION:
        raise FormatVersionError(
            f"{where}: it has format version {version}, and this pyrogen reads up to version {FORMAT_VERSION}. "
            "Upgrade pyrogen to read it."
        )
    content = {name: value for name, value in manifest.items() if name not in ("format", "format_version", "sha256")}
    if found != f"pyrogen {kind}":
        raise corrupt(where, f"it is the manifest of a {found!r}; expected 'pyrogen {kind}'")
    try:
        intact = seal(kind, content) == data
    except (TypeError, ValueError, RecursionError):
        intact = False
    if not intact:
        raise corrupt(where, "it was changed after it was written (its content and its own SHA-256 do not agree)")
    return content


def _is_plain(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) is not None and name != MANIFEST


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=2, allow_nan=False).encode() + b"\n"
