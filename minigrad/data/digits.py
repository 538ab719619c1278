"""The UCI handwritten digits, stored in the package.

"Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak (1998), UCI Machine
Learning Repository, doi 10.24432/C50P49, test part, licensed CC BY 4.0
(https://creativecommons.org/licenses/by/4.0/). Changes: stored as unsigned bytes, compressed.
"""

from importlib import resources

import numpy as np


def digits() -> tuple[np.ndarray, np.ndarray]:
    """1797 images of handwritten digits, 8 x 8 pixels each.

    Three pixels are blank in every image, so some columns have variance 0.

    Returns:
        The images, float64 (1797, 64) in 0 .. 16 with the rows of pixels one after another, and the
        labels, int64 (1797,) in 0 .. 9.

    Source:
        Alpaydin, Kaynak 1998, UCI Machine Learning Repository, doi 10.24432/C50P49,
        CC BY 4.0.

    >>> images, labels = mg.data.digits()
    >>> images.shape, labels[:5]
    ((1797, 64), array([0, 1, 2, 3, 4]))
    """
    with resources.files("minigrad.data").joinpath("digits.npz").open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        return archive["images"].astype(np.float64), archive["labels"].astype(np.int64)
