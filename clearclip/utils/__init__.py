"""Errors, files, devices, images, downloads: what knows nothing of the method."""
