"""How good a generator is: feature networks, distances between sets of images, and the report."""
