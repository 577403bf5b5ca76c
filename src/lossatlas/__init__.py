"""Loss Atlas."""

__version__ = "0.6.0"
