"""Data sets, checked when they are loaded, and batches drawn when they are needed."""

from pyrogen.data.arrays import read_arrays
from pyrogen.data.audio import Sounds, from_wavs
from pyrogen.data.batches import Batches
from pyrogen.data.cache import cache_folder
from pyrogen.data.corpus import Corpus, Pruning, from_counts, from_text
from pyrogen.data.dataset import Dataset
from pyrogen.data.environments import Episode, GymnasiumEnvironment
from pyrogen.data.idx import encode_idx, read_idx, read_idx_folder
from pyrogen.data.images import read_image_folder
from pyrogen.data.labels import keep_labels, known_labels
from pyrogen.data.mu_law import from_mu_law, to_mu_law
from pyrogen.data.mutation import mutated
from pyrogen.data.normalized import Normalized
from pyrogen.data.outcome import Environment, Outcome
from pyrogen.data.pixels import PIXELS, apply_pixels
from pyrogen.data.recordings import speech
from pyrogen.data.replay import Replay
from pyrogen.data.rollouts import Rollouts
from pyrogen.data.shapes import Factors, draw_factors, render, shapes
from pyrogen.data.shards import ShardedCorpus
from pyrogen.data.sources import breast_cancer, digits, fashion_mnist, from_arrays, from_path, iris, mnist_10k
from pyrogen.data.splits import split, standardize
from pyrogen.data.tabular import TabularEnvironment
from pyrogen.data.text import Streams, Text, from_characters
from pyrogen.data.texts import kjv, reuters
from pyrogen.data.toy import GRID, RING, Modes, grid, ring
from pyrogen.data.unpaired import Unpaired, UnpairedBatches
from pyrogen.data.wav import encode_wav, read_wav

__all__ = [
    "GRID",
    "PIXELS",
    "RING",
    "Batches",
    "Corpus",
    "Dataset",
    "Environment",
    "Episode",
    "Factors",
    "GymnasiumEnvironment",
    "Modes",
    "Normalized",
    "Outcome",
    "Pruning",
    "Replay",
    "Rollouts",
    "ShardedCorpus",
    "Sounds",
    "Streams",
    "TabularEnvironment",
    "Text",
    "Unpaired",
    "UnpairedBatches",
    "apply_pixels",
    "breast_cancer",
    "cache_folder",
    "digits",
    "draw_factors",
    "encode_idx",
    "encode_wav",
    "fashion_mnist",
    "from_arrays",
    "from_characters",
    "from_counts",
    "from_mu_law",
    "from_path",
    "from_text",
    "from_wavs",
    "grid",
    "iris",
    "keep_labels",
    "kjv",
    "known_labels",
    "mnist_10k",
    "mutated",
    "read_arrays",
    "read_idx",
    "read_idx_folder",
    "read_image_folder",
    "read_wav",
    "render",
    "reuters",
    "ring",
    "shapes",
    "speech",
    "split",
    "standardize",
    "to_mu_law",
]
