"""Generative models as Pyro programs, and the learning principles that fit them.

The two rooms to start from are :mod:`pyrogen.models` and :mod:`pyrogen.inference`: an algorithm is a model and a
learning principle.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "DataSpec": "spec",
    "ELBO": "inference",
    "ForwardKL": "inference",
    "IWAE": "inference",
    "MaximumLikelihood": "inference",
    "Objective": "inference",
    "PyroELBO": "inference",
    "Renyi": "inference",
    "ReverseKL": "inference",
    "Run": "runs",
    "compare": "comparison",
    "compile": "inference",
    "evaluate": "card",
    "fit": "fitting",
    "load": "loading",
    "log_weights": "programs",
    "simulate": "programs",
    "to_arviz": "analysis",
    "train": "inference",
    "write_report": "report",
}
_ROOMS = ("data", "distributions", "errors", "evaluation", "inference", "models", "nn", "programs")

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import what is asked for, and no more: ``import pyrogen`` alone brings neither torch nor Pyro."""
    if name in _HOMES:
        return getattr(import_module(f"pyrogen.{_HOMES[name]}"), name)
    if name in _ROOMS:
        return import_module(f"pyrogen.{name}")
    raise AttributeError(f"module 'pyrogen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS])
