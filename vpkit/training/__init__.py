"""One loop for every method: `fit`, its schedules, its history, and checkpoints that continue an interrupted run.

The loop does not know the loss: the classifier gives it.
"""

from vpkit.training.checkpoint import epochs_left
from vpkit.training.history import History
from vpkit.training.loop import Evaluation, evaluate, fit, train_epoch

__all__ = ["Evaluation", "History", "epochs_left", "evaluate", "fit", "train_epoch"]
