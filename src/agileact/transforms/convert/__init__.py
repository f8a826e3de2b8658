"""Into a model: every activation becomes agile, the outputs stay."""
