"""Recordings by name: speech."""

from hashlib import sha256
from pathlib import Path

from pyrogen.data.audio import Sounds, from_wavs, sounds_in
from pyrogen.data.cache import cache_folder
from pyrogen.errors import DataError, MissingInputError

__all__ = ["SPEECH_FOLDER", "check_speech", "find_speech", "speech"]

SPEECH_FOLDER = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
"""Where Debian's ``asterisk-core-sounds-en-wav`` has it."""

SPEECH_SHA256 = "4ed4f885efd3f63f05f16c2de4ea4c1bc6c0ccd8fd24a60c848e437c557e7c7f"
"""Of the SHA-256 of all WAV files, hexadecimal, one after another in the order of their names."""


def speech(
    *,
    seconds: float | None = None,
    length: int | None = None,
    levels: int = 256,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
) -> Sounds:
    """Load 568 announcements by one speaker, 25 minutes at 8 kHz; ``make data`` brings them.

    Source: Allison Smith, *Asterisk core sounds, English*, 2010, licence CC BY-SA 3.0,
    https://packages.debian.org/stable/asterisk-core-sounds-en-wav.

    Args:
        seconds: how long a window is; 0.5 if not given, for a third of the announcements is shorter than a second.
        length: likewise, in samples.
        levels: of the mu-law, from 2 to 256.
        validation: fraction of clips.
        test: likewise.
        seed: of the cut into splits.

    Raises:
        MissingInputError: not on this machine.
        DataError: other bytes than the published ones.
    """
    folder = find_speech()
    check_speech(folder)
    return from_wavs(
        folder,
        name="speech",
        seconds=0.5 if seconds is None and length is None else seconds,
        length=length,
        levels=levels,
        has_labels=False,
        validation=validation,
        test=test,
        seed=seed,
    )


def find_speech() -> Path:
    """Return the folder of the announcements: in pyrogen's cache, else where the system's package has it.

    Raises:
        MissingInputError: in neither of them.
    """
    places = [cache_folder() / "speech", SPEECH_FOLDER]
    for place in places:
        if place.is_dir():
            return place
    looked = ", ".join(map(str, places))
    raise MissingInputError(
        f"speech: no folder {looked}. To bring it run `make data` (python -m pyrogen.data.fetch), or apt-get install "
        f"asterisk-core-sounds-en-wav"
    )


def check_speech(folder: Path) -> None:
    """Refuse anything but the 568 published files.

    Raises:
        DataError: with what was found.
    """
    hashes = [sha256(file.read_bytes()).hexdigest() for _, _, file in sounds_in(folder)]
    found = sha256("".join(hashes).encode()).hexdigest()
    if found != SPEECH_SHA256:
        raise DataError(
            f"{folder}: {len(hashes)} WAV files of SHA-256 {found}, expected 568 of {SPEECH_SHA256}. Remove the folder "
            f"and run `make data`, or read other sounds by their path"
        )
