"""The one exception of the build."""


class BuildError(Exception):
    """What was asked for cannot be built; the message says what came and what to do."""
