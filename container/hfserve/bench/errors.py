"""What keeps a measurement from being taken, in a sentence that says what to do."""


class BenchError(Exception):
    """A measurement that cannot be taken."""
