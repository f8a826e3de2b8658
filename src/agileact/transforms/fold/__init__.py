"""Out of a model: scale and location move into the neighbouring weights."""
