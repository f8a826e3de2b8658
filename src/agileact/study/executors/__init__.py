"""Where trials run; every executor takes specs and returns results, none writes the store."""
