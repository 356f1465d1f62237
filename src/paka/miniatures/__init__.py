"""Miniatures: valid data sets of a few generated images, in the true tree, names and formats."""
