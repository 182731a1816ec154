"""A package whose record of files is not the one that pip wrote."""

from __future__ import annotations


class EditedRecord:
    """A package as pip recorded it, with another list of files."""

    def __init__(self, distribution, change):
        self.distribution, self.change, self.version = distribution, change, distribution.version

    def locate_file(self, path):
        return self.distribution.locate_file(path)

    def read_text(self, name):
        return self.change(self.distribution.read_text(name))
