"""The few kinds of error a user can meet; each message names the culprit and the way out."""


class InputError(ValueError):
    """A file, column or value is not what was declared."""


class ParameterError(InputError):
    """A parameter is unknown, has the wrong type or lies outside its range."""


class LeakError(InputError):
    """A test perturbation would be seen in training."""


class DownloadError(RuntimeError):
    """A file could not be fetched, or what came is not what was pinned."""
