"""Data sets and their training, calibration, validation and test splits, as NumPy arrays.

Features stay raw (uint8 pixels, or float32): standardization belongs to the network, fitted on the training split.
"""

from mncompress.data._check import check_resolution as check_resolution
from mncompress.data._dataset import Arrays as Arrays
from mncompress.data._dataset import Dataset as Dataset
from mncompress.data._dataset import Split as Split
from mncompress.data._functions import FUNCTION_NAMES as FUNCTION_NAMES
from mncompress.data._load import DATASET_NAMES as DATASET_NAMES
from mncompress.data._load import FEWEST_ROWS as FEWEST_ROWS
from mncompress.data._load import IN_MEMORY as IN_MEMORY
from mncompress.data._load import load_dataset as load_dataset
from mncompress.data._load import split_arrays as split_arrays
from mncompress.data._standardization import Standardization as Standardization
from mncompress.data._standardization import standardization_of as standardization_of
