"""The errors that a user can meet. Each message says what, where, what was found, what was expected and the fix."""

__all__ = [
    "CollapseError",
    "CollapseWarning",
    "CompileWarning",
    "CorruptCheckpointError",
    "DataError",
    "FormatVersionError",
    "InfeasibleStartError",
    "InputOutputError",
    "MisrankingWarning",
    "MissingInputError",
    "NonFiniteError",
    "ProgramError",
    "PyrogenError",
    "RunExistsError",
    "RunLockedError",
    "UsageError",
]


class PyrogenError(Exception):
    """A mistake that can be mended from outside pyrogen; ``exit_code`` is what the command line returns for it."""

    exit_code = 65


class UsageError(PyrogenError, ValueError):
    """An unknown name, option or setting."""

    exit_code = 2


class RunExistsError(UsageError):
    """The output folder holds a run already."""


class DataError(PyrogenError, ValueError):
    """Data that no model should be fitted to: empty, ragged, non-finite, out of range, of the wrong type."""


class MissingInputError(PyrogenError, FileNotFoundError):
    """A file or folder that is not there."""

    exit_code = 66


class ProgramError(PyrogenError, ValueError):
    """A model, guide and objective that do not fit together: sites, plates, shapes, devices or parameters."""


class NonFiniteError(PyrogenError, ArithmeticError):
    """A loss or gradient became infinite or NaN; the parameters still hold their last finite values."""


class InfeasibleStartError(NonFiniteError):
    """The first loss is not finite: some site has no density at the initial values."""


class CorruptCheckpointError(PyrogenError, ValueError):
    """A file of a run directory is damaged, incomplete, or does not belong to it."""


class FormatVersionError(PyrogenError, ValueError):
    """A run directory was written by a newer pyrogen than this one."""


class InputOutputError(PyrogenError, OSError):
    """The disk is full, read-only or otherwise refuses."""

    exit_code = 74


class RunLockedError(InputOutputError):
    """Another process is writing to the run directory."""


class CollapseError(PyrogenError, ArithmeticError):
    """An adversarial fit that has come to nothing, where that was to end it: a critic that won, or equal draws."""


class CollapseWarning(UserWarning):
    """An adversarial fit that is coming to nothing; the message says by which figure, and what to try."""


class CompileWarning(UserWarning):
    """A program that was to be compiled runs without a graph; the message says why, where and what would help."""


class MisrankingWarning(UserWarning):
    """A figure that may put the worse of two models first; the message says why, and what to take in its place."""
