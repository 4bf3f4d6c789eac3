"""Keys that lie in clusters, as those of texts do."""

import numpy as np


def clustered(rows, width=16, clusters=40, seed=0):
    """Unit vectors around random centres, in random order; (rows, width) float32."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(1_000).standard_normal((clusters, width))
    vectors = centres[random.integers(clusters, size=rows)]
    vectors = vectors + 0.5 * random.standard_normal((rows, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
