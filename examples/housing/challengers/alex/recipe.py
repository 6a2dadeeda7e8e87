"""This file is the model before it is fitted, and the types its file may hold."""

from __future__ import annotations

import numpy as np
from listing import NUMBERS
from sklearn.base import RegressorMixin
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder

# Besides the types that skops trusts by itself. A tree's nodes are read without bounds checks, so a forged file could
# crash the server; ours is what our own `train` wrote.
TRUSTED = ["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"]


def recipe() -> RegressorMixin:
    """Gradient boosting on all facts, fitted to the logarithm of the price, so that errors count as parts of it."""
    words = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    facts = make_column_transformer((words, slice(len(NUMBERS), None)), remainder="passthrough")
    boosting = HistGradientBoostingRegressor(random_state=0)
    return TransformedTargetRegressor(make_pipeline(facts, boosting), transformer=FunctionTransformer(np.log, np.exp))
