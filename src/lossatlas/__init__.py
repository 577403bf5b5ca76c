"""Loss Atlas."""

__version__ = "0.2.0"
