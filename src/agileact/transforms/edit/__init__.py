"""What changes a model in place, and how it is put back."""
