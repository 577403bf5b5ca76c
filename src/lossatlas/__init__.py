"""Loss Atlas."""

__version__ = "0.21.0"
