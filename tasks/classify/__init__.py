"""The steps of a classification, and the commands that classify a few rows: evaluate, explain."""
