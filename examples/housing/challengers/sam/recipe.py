"""This file is the model before it is fitted, and the types its file may hold."""

from __future__ import annotations

import numpy as np
from listing import NUMBERS
from sklearn.base import RegressorMixin
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

# Besides the types that skops trusts by itself.
TRUSTED = ["numpy.dtype"]


def recipe() -> RegressorMixin:
    """A straight line through all facts, fitted to the logarithm of the price, so that errors count as parts of it."""
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    words = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=10)
    facts = make_column_transformer((numbers, slice(len(NUMBERS))), (words, slice(len(NUMBERS), None)))
    line = make_pipeline(facts, Ridge(alpha=10))
    return TransformedTargetRegressor(line, transformer=FunctionTransformer(np.log, np.exp))
