"""Keys, indexes and lists of neighbours: how near the rows of a database are to each other."""
