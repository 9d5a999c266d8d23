"""Prompting behind an interface: images can be sent and answers read, and every image sent is counted.

`ScoresOnly` is the interface. What is learned behind it takes no gradient through the model: SPSA-GC and CMA-ES for a
prompt, counted or fitted mappings for the answers.
"""

import io
import json
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim import Optimizer

from vpkit.interfaces import Batch, LabelledBatches
from vpkit.methods.baselines import LinearProbe, linear_probe
from vpkit.methods.vp import PromptedClassifier
from vpkit.prompts.low_dimensional import CoarsePrompt, CosinePrompt, LowRankPrompt, MaskedPrompt
from vpkit.prompts.pixels import PadPrompt
from vpkit.training.history import History
from vpkit.training.loop import evaluate

__all__ = ["PROMPTS", "SPSAGC", "BudgetSpent", "ScoresOnly", "cma_es", "fit_by_scores", "linear_on_scores", "over_http"]

PROMPTS: dict[str, Callable[[int], nn.Module]] = {  # of images of this side; most have few numbers
    "coarse grid": partial(CoarsePrompt, cells=4),
    "few cells": partial(CoarsePrompt, cells=2),
    "low rank": LowRankPrompt,
    "waves": partial(CosinePrompt, waves=4),
    "frame": lambda side: PadPrompt(side, side // 8),
    "SMM": MaskedPrompt,
    "none": lambda _side: nn.Identity(),
}


class BudgetSpent(RuntimeError):
    """No more images may be sent."""


class ScoresOnly(nn.Module):
    """A model as a service: images in, answers out, no gradient, and a count of the images that were sent.

    An image is sent as a file would be: values are cut to [0, 1] and rounded to 8 bits.

    Args:
        ask: images (B, 3, H, W) to logits (B, S): a frozen model, or `over_http`.
        class_names: of the S classes; by default those that `ask` has.
        budget: images that may be sent, in all; None: any number.
        top: the service tells only its so many best classes, and all others share what is left; None: all.
        labels_only: the service tells only the best class.

    Attributes:
        sent: images sent so far.

    Raises:
        RuntimeError: in a call, images that take gradients.
        BudgetSpent: in a call, more images than the budget has left; none of them is sent.
        ValueError: a `top` below 1, or together with `labels_only`.
    """

    mean: Tensor
    _ask: Callable[[Tensor], Tensor]

    def __init__(
        self,
        ask: Callable[[Tensor], Tensor],
        class_names: Sequence[str] | None = None,
        budget: int | None = None,
        top: int | None = None,
        labels_only: bool = False,
    ):
        super().__init__()
        if top is not None and (top < 1 or labels_only):
            raise ValueError(f"top={top}, labels_only={labels_only}: expected at least 1 best class, or labels_only")
        self.__dict__["_ask"] = ask  # not a part: nobody gets at its parameters from here
        names = getattr(ask, "class_names", None) if class_names is None else class_names
        if names is None:
            raise ValueError("class_names: not given, and what is asked has none; expected the names of its classes")
        self.class_names = tuple(names)
        self.budget, self.top, self.labels_only, self.sent = budget, top, labels_only, 0
        where = getattr(getattr(ask, "mean", None), "device", None)  # that of a frozen model
        self.register_buffer("mean", torch.zeros(3, device=where), persistent=False)  # where its answers are wanted
        self.eval()

    def train(self, mode: bool = True) -> "ScoresOnly":
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to log probabilities (B, S) as far as they are told."""
        if images.requires_grad:
            raise RuntimeError(
                "images that take gradients cannot be sent: behind an interface there is nothing to follow them "
                "through; call it under torch.no_grad()"
            )
        if self.budget is not None and self.sent + len(images) > self.budget:
            raise BudgetSpent(f"{self.sent} of {self.budget} images are sent, {len(images)} more do not fit the budget")
        with torch.no_grad():
            told = self._ask(images.clamp(0, 1).mul(255).round().div(255)).log_softmax(1)
        self.sent += len(images)
        count = told.shape[1]
        if self.labels_only:  # as if half were sure and half unknown: only the order of this one and the rest matters
            told = torch.full_like(told, 0.5 / count).scatter(1, told.argmax(1, keepdim=True), 0.5).log()
        elif self.top is not None and self.top < count:
            best = told.topk(self.top)
            rest = (1 - best.values.exp().sum(1, keepdim=True)).clamp(min=1e-9) / (count - self.top)
            told = rest.log().expand(-1, count).scatter(1, best.indices, best.values)
        return told

    features = forward  # what a linear map reads


class SPSAGC(Optimizer):
    """SPSA with gradient correction: two answers a draw in place of a gradient, and Nesterov's momentum.

    g = (L(phi + c D) - L(phi - c D)) / (2 c D), mean over `draws` of D, in size uniform in [0.5, 1], with random signs;
    m = beta m + g; phi = phi - a (g + beta m), with a = lr / (t + 1)^0.5 and c = spread / (t + 1)^0.1.

    Args:
        params: what is learned.
        lr, beta: as above.
        draws: directions in each step; each asks for the loss twice.
        spread: c of the first step, in units of the parameters.

    Raises:
        ValueError: draws below 1, or a spread or learning rate that is not positive.

    Source: Oh et al. 2023 (BlackVIP), SPSA-GC; SPSA is Spall 1992.
    """

    def __init__(self, params, lr: float = 0.1, beta: float = 0.9, draws: int = 5, spread: float = 0.01):
        if draws < 1 or spread <= 0 or lr <= 0:
            raise ValueError(f"draws={draws}, spread={spread}, lr={lr}: expected at least 1 draw and positive numbers")
        super().__init__(params, {"lr": lr, "beta": beta, "draws": draws, "spread": spread})
        self.steps, self.momentum = 0, torch.zeros(())

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor | float]) -> float:  # type: ignore[override]
        """One step; `closure` gives the loss of the present parameters. Returns the mean of the losses it gave."""
        options = self.param_groups[0]
        parameters = [p for group in self.param_groups for p in group["params"]]
        phi = parameters_to_vector(parameters)
        spread = options["spread"] / (self.steps + 1) ** 0.1
        gradient, losses = torch.zeros_like(phi), []
        try:
            for _ in range(options["draws"]):
                signs = torch.randint(2, phi.shape).mul(2).sub(1)  # drawn on the CPU: one seed, one run on every device
                direction = (signs * (0.5 + 0.5 * torch.rand(phi.shape))).to(phi)
                ahead, behind = (self._loss_at(phi + c * direction, parameters, closure) for c in (spread, -spread))
                gradient += (ahead - behind) / (2 * spread * direction) / options["draws"]
                losses += [ahead, behind]
        finally:
            vector_to_parameters(phi, parameters)  # also when the budget ends in the middle of a step
        self.momentum = options["beta"] * self.momentum.to(phi) + gradient
        rate = options["lr"] / (self.steps + 1) ** 0.5
        vector_to_parameters(phi - rate * (gradient + options["beta"] * self.momentum), parameters)
        self.steps += 1
        return sum(losses) / len(losses)

    @staticmethod
    def _loss_at(phi: Tensor, parameters: list, closure: Callable[[], Tensor | float]) -> float:
        vector_to_parameters(phi, parameters)
        return float(closure())


def fit_by_scores(
    classifier: PromptedClassifier,
    batches: Iterable[Batch],
    optimizer: SPSAGC,
    before_epoch: Callable[[PromptedClassifier, int], object] | None = None,
    val: LabelledBatches | None = None,
) -> History:
    """Train the prompt of a classifier around `ScoresOnly` until its budget is spent; a row an epoch.

    Args:
        classifier: prompt, interface, mapping.
        batches: training images; passed over until the budget ends.
        optimizer: over the prompt.
        before_epoch: as in `vpkit.fit`, such as a new mapping; what it sends counts too.
        val: evaluated after each epoch, if given; its images count too.

    Returns:
        `History` with epoch, train_loss (mean over all answers, perturbed prompts too), queries, all that was sent, and
        with `val` val_accuracy.

    Raises:
        ValueError: an interface without a budget, which would never end.
    """
    interface = classifier.model
    if not isinstance(interface, ScoresOnly) or interface.budget is None:
        raise ValueError("fit_by_scores ends when a budget is spent: expected a model ScoresOnly(..., budget=...)")
    classifier.train()
    history, epoch = History(), 0
    while True:
        epoch += 1
        losses: list[float] = []
        try:
            if before_epoch is not None:
                before_epoch(classifier, epoch)
            for images, labels in batches:
                losses.append(optimizer.step(partial(_loss, classifier, images, labels)))
            if not losses:
                raise ValueError("there is nothing to train on: the batches are empty; expected at least one")
            row = {"epoch": epoch, "train_loss": sum(losses) / len(losses), "queries": interface.sent}
            history.add(**row, **({} if val is None else {"val_accuracy": evaluate(classifier, val).accuracy}))
        except BudgetSpent:
            if losses:
                history.add(epoch=epoch, train_loss=sum(losses) / len(losses), queries=interface.sent)
            return history


def _loss(classifier: PromptedClassifier, images: Tensor, labels: Tensor) -> Tensor:
    return classifier.loss(images, labels)[0]


def cma_es(
    loss: Callable[[], Tensor | float], parameters: Iterable[nn.Parameter], spread: float = 0.1, seed: int = 0
) -> int:
    """Minimise a loss over few numbers by CMA-ES until `BudgetSpent`: the best point that was met stays in place.

    Args:
        loss: of the present parameters; sends images, and raises `BudgetSpent` in the end.
        parameters: some hundred numbers at most: each step costs the square of their number.
        spread: first standard deviation, in units of the parameters.
        seed: of the search.

    Returns:
        How many points were tried.

    Source: Hansen (package cma), the usual settings.
    """
    import cma  # type: ignore[import-untyped]

    parameters = list(parameters)
    phi = parameters_to_vector([p.detach() for p in parameters])
    best, lowest, tried = phi, np.inf, 0
    search = cma.CMAEvolutionStrategy(phi.cpu().double().numpy(), spread, {"seed": seed + 1, "verbose": -9})  # 0: time
    try:
        while True:
            points, losses = search.ask(), []
            for point in points:
                candidate = torch.from_numpy(point).to(phi)
                with torch.no_grad():
                    vector_to_parameters(candidate, parameters)
                    losses.append(float(loss()))
                tried += 1
                if losses[-1] < lowest:
                    best, lowest = candidate, losses[-1]
            search.tell(points, losses)
    except BudgetSpent:
        with torch.no_grad():
            vector_to_parameters(best, parameters)
        return tried


class _PromptedInterface(nn.Module):
    """What an interface says of images with a prompt."""

    _put_on: Callable[[Tensor], Tensor]

    def __init__(self, prompt: nn.Module, interface: ScoresOnly):
        super().__init__()
        self.__dict__["_put_on"] = prompt  # not a part: it is not learned any more
        self.interface, self.mean = interface, interface.mean

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        return self.interface(self._put_on(images))


def linear_on_scores(
    interface: ScoresOnly, train: LabelledBatches, val: LabelledBatches, prompt: nn.Module | None = None
) -> LinearProbe:
    """A linear map from what the interface says of images to the target classes; of plain ones, a prompt's control.

    Logistic regression on log probabilities, the penalty chosen on validation. Each image is sent once.

    Args:
        prompt: put on every image first, in the classifier that is returned too; it is not changed.

    Raises:
        ValueError, BudgetSpent: as `vpkit.methods.linear_probe` and `ScoresOnly`.
    """
    asked = interface if prompt is None else _PromptedInterface(prompt, interface)
    return linear_probe(asked, train, val)  # type: ignore[arg-type]


class over_http:
    """A `vpkit serve` as something to ask: images (B, 3, H, W) in [0, 1] to log probabilities (B, S), one request each.

    Args:
        address: such as "http://127.0.0.1:8000".
        token: if the service wants one.
        at_once: requests under way at a time.
        timeout: seconds to wait for an answer.

    Raises:
        ValueError: an image that the service refuses; its reason is in the message.
        OSError: no service there.
    """

    def __init__(self, address: str, token: str | None = None, at_once: int = 8, timeout: float = 60.0):
        self.address, self.timeout = address.rstrip("/"), timeout
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._pool = ThreadPoolExecutor(at_once)
        self.class_names = tuple(self._read(Request(f"{self.address}/health", headers=self.headers))["class_names"])

    def __call__(self, images: Tensor) -> Tensor:
        pixels = images.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        rows = list(self._pool.map(self._predict, pixels))
        return torch.tensor(rows, dtype=torch.float32, device=images.device).clamp(min=1e-12).log()

    def _predict(self, pixels: np.ndarray) -> list[float]:
        file, mark = io.BytesIO(), uuid.uuid4().hex
        Image.fromarray(pixels).save(file, "PNG", compress_level=1)
        head = f'--{mark}\r\nContent-Disposition: form-data; name="image"; filename="image.png"\r\n\r\n'
        body = head.encode() + file.getvalue() + f"\r\n--{mark}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={mark}", **self.headers}
        answer = self._read(Request(f"{self.address}/predict", body, headers))
        return [answer["probabilities"][name] for name in self.class_names]

    def _read(self, request: Request) -> dict:
        try:
            with urlopen(request, timeout=self.timeout) as answer:
                return json.load(answer)
        except HTTPError as error:
            raise ValueError(
                f"{request.full_url} answers {error.code}: {error.read(500).decode(errors='replace')}"
            ) from error
