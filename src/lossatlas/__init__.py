"""Loss Atlas."""

__version__ = "0.28.0"
