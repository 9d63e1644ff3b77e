"""Data sets and their training, calibration, validation and test splits, as NumPy arrays.

Features stay raw (uint8 pixels, or float32): standardization belongs to the network, fitted on the training split.
"""

from mncompress.data._dataset import Dataset as Dataset
from mncompress.data._dataset import Split as Split
from mncompress.data._functions import FUNCTION_NAMES as FUNCTION_NAMES
from mncompress.data._load import load_dataset as load_dataset
from mncompress.data._standardization import Standardization as Standardization
from mncompress.data._standardization import standardization_of as standardization_of
