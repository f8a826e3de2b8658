"""What all rooms use: errors, deferred imports, names, checks of arguments, text for a terminal, files."""
