"""Training of populations of networks on one device."""

from mncompress.training._device import choose_device as choose_device
from mncompress.training._metrics import read_metrics as read_metrics
from mncompress.training._population import make_population as make_population
from mncompress.training._train import TrainProgress as TrainProgress
from mncompress.training._train import train as train
