"""Loss Atlas."""

__version__ = "0.15.0"
