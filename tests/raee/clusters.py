"""Keys: anywhere, and in clusters as those of texts are."""

import numpy as np


def unit_vectors(n: int, width: int = 128, seed: int = 0) -> np.ndarray:
    """(n, width) float32."""
    vectors = np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def clustered(rows, width=16, clusters=40, seed=0):
    """Unit vectors around random centres, in random order; (rows, width) float32."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(1_000).standard_normal((clusters, width))
    vectors = centres[random.integers(clusters, size=rows)]
    vectors = vectors + 0.5 * random.standard_normal((rows, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
