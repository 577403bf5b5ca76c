"""Loss Atlas."""

__version__ = "0.7.0"
