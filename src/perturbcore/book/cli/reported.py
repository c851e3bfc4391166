"""Failures that are reported in one message."""


class Reported(RuntimeError):
    """A failure whose message is all a user needs."""
