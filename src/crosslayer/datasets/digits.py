"""The small digits that come with scikit-learn."""

import numpy as np

from crosslayer.core.dataset import Split
from crosslayer.core.errors import ToolError
from crosslayer.datasets.parts import Parts


def read() -> Parts:
    """1,797 images of 8×8×1, 10 classes; codes 0…16, real = code / 16. ToolError without scikit-learn.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998
    (its test part, as scikit-learn bundles it).
    """
    try:
        from sklearn.datasets import load_digits  # here, since it is optional and slow to import
    except ImportError as error:
        raise ToolError("digits: scikit-learn is not installed; run `pip install 'crosslayer[train]'`") from error
    pixels, labels = load_digits(return_X_y=True)
    codes = np.asarray(pixels).astype(np.uint8).reshape(-1, 8, 8, 1)
    return Parts(
        train=Split(codes=codes, labels=np.asarray(labels).astype(np.int64), scale=1 / 16), classes=tuple("0123456789")
    )
