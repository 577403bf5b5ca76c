"""Loss Atlas."""

__version__ = "0.27.0"
