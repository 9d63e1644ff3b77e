"""The error tree.

Everything that a user can cause and mend is a `MncompressError` whose text is one plain line: what was wrong, where,
and what to do. The command line prints that line and exits with 1; any other exception is a bug and keeps its traceback.
"""


class MncompressError(Exception):
    """Base of all errors that a user can mend."""


class ConfigError(MncompressError):
    """A configuration, recipe, plan or option that cannot be used."""


class DataError(MncompressError):
    """A data set that is missing, malformed or not the one the run was trained on."""


class CheckpointError(MncompressError):
    """A run or compressed folder that is missing, truncated or of an unknown version."""


class TrainingError(MncompressError):
    """Training that cannot go on, such as a diverged network."""


class ExportError(MncompressError):
    """An ONNX file that could not be written or does not compute what the network computes."""


class RuntimeProviderError(MncompressError):
    """An execution provider, device or ONNX session that is not available."""


class OutputError(MncompressError):
    """An output folder or file that cannot be written."""
