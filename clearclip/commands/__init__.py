"""The command lines of the four scripts, and the page: options, progress and printing."""
