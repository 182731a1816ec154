"""The version, in a file that needs no other import."""

__version__ = "0.1.0"
