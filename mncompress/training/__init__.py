"""Training of populations of networks on one device."""

from mncompress.training._device import choose_device as choose_device
from mncompress.training._train import TrainProgress as TrainProgress
from mncompress.training._train import train as train
from mncompress.training._train import train_stacks as train_stacks
from mncompress.training._trainer import evaluate_run as evaluate_run
