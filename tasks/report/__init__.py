"""The page that a version comes with: what it can do, at what cost, and how that is known."""
