"""Published versions: listed, verified, tuned, pruned, and collected when nobody needs them."""
