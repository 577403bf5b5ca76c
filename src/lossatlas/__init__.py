"""Loss Atlas."""

__version__ = "0.23.0"
