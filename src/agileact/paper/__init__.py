"""The study of the paper as a recipe: its twelve networks, its table, its figures, and XOR."""
