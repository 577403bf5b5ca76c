"""Loss Atlas."""

__version__ = "0.20.0"
