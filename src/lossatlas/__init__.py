"""Loss Atlas."""

__version__ = "0.8.0"
