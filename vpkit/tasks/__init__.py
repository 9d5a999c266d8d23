"""Your own pictures: fit, save, predict, report and export a classifier of them. `vpkit --help` is its command line.

Built from the other rooms; only chapters use it.
"""

from vpkit.tasks.export import export_onnx
from vpkit.tasks.files import load_task, save_task
from vpkit.tasks.report import write_report
from vpkit.tasks.task import FittedTask, choose_task, evaluate_task, fit_task, predict_images, probabilities_of

__all__ = [
    "FittedTask",
    "choose_task",
    "evaluate_task",
    "export_onnx",
    "fit_task",
    "load_task",
    "predict_images",
    "probabilities_of",
    "save_task",
    "write_report",
]
