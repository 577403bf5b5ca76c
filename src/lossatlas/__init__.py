"""Loss Atlas."""

__version__ = "0.18.0"
