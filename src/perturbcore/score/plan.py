"""Old names, to be removed: see `perturbcore.models.simple.space`."""


def __getattr__(name):
    from perturbcore.models.simple.space import Protocol

    if name == "Protocol":
        return Protocol
    raise AttributeError(name)
