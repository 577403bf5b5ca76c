"""Loss Atlas."""

__version__ = "0.5.0"
