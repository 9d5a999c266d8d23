"""The plain way to write these methods, as the released code does, to time ours against.

Written for this purpose from the described behaviour of the public repositories, none of their lines: images decoded
and resized from files in every pass, a separate full-precision pass that keeps all logits for the mapping, an arg-max
over the whole table for each class, numbers read back from the device in every step, and, for VP, a model that is
flagged trainable and a text encoder that runs again in every batch.
"""

from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize, one_hot
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Resize, ToTensor
from torchvision.transforms.v2.functional import pad


class BorderPrompt(nn.Module):
    """The whole canvas as a parameter; a mask decides what of it shows."""

    def __init__(self, image_size, canvas_size, mean, std):
        super().__init__()
        self.program = nn.Parameter(torch.zeros(3, canvas_size, canvas_size))
        self.before = (canvas_size - image_size + 1) // 2
        self.after = (canvas_size - image_size) // 2
        mask = torch.ones(3, canvas_size, canvas_size)
        mask[:, self.before : canvas_size - self.after, self.before : canvas_size - self.after] = 0
        self.register_buffer("mask", mask)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, images):
        padded = pad(images, [self.before, self.before, self.after, self.after])
        return (padded + torch.sigmoid(self.program) * self.mask - self.mean) / self.std


def plain_loader(folder: Path, image_size: int, batch_size: int, shuffle: bool, workers: int) -> DataLoader:
    images = ImageFolder(folder, Compose([Resize((image_size, image_size)), ToTensor()]))
    return DataLoader(images, batch_size, shuffle=shuffle, num_workers=workers)


def plain_mapping(network, prompt, loader, device) -> torch.Tensor:
    """All logits kept, one-hot of the same size, then a scan of the whole table for every class."""
    logits, labels = [], []
    with torch.no_grad():
        for images, y in loader:
            logits.append(network(prompt(images.to(device))))
            labels.append(y)
    logits, labels = torch.cat(logits).cpu(), torch.cat(labels)
    hits = one_hot(logits.argmax(1), logits.shape[1])
    counts = torch.stack([hits[labels == t].sum(0) for t in labels.unique()], 1)
    mapping = torch.zeros(counts.shape[1], dtype=torch.long)
    for _ in range(counts.shape[1]):
        source, target = divmod(counts.argmax().item(), counts.shape[1])
        mapping[target] = source
        counts[source], counts[:, target] = -1, -1
    return mapping


def plain_ilm_vp(network, mean, std, folder: Path, sizes, epochs, batch_size, lr, device, trainable=False, workers=1):
    """ILM-VP, an epoch at a time; returns accuracy on `folder`/test."""
    network.requires_grad_(trainable)
    prompt = BorderPrompt(*sizes, mean, std).to(device)
    optimizer = torch.optim.Adam(prompt.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [int(0.5 * epochs), int(0.72 * epochs)])
    train = plain_loader(folder / "train", sizes[0], batch_size, True, workers)
    test = plain_loader(folder / "test", sizes[0], batch_size, False, workers)
    cuda = device.type == "cuda"
    scaler = torch.amp.GradScaler(enabled=cuda)
    for _ in range(epochs):
        mapping = plain_mapping(network, prompt, train, device).to(device)
        loss_sum = hits = 0
        for images, labels in train:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            with torch.autocast("cuda", torch.float16, enabled=cuda):
                logits = network(prompt(images))[:, mapping]
                loss = cross_entropy(logits, labels)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            loss_sum += loss.item() * len(labels)
            hits += (logits.argmax(1) == labels).sum().item()
        schedule.step()
    hits = total = 0
    with torch.no_grad():
        for images, labels in test:
            hits += (network(prompt(images.to(device)))[:, mapping].argmax(1).cpu() == labels).sum().item()
            total += len(labels)
    return hits / total


def plain_clip_step(network, tokens, images, labels, mean, std, program, optimizer):
    """One step of VP on CLIP: sentences encoded again, gradients for every weight, loss read back."""
    frame = torch.zeros_like(images)
    frame[:] = program
    features = normalize(network.visual((images - mean) / std + frame), dim=1)
    text = normalize(network.encode_text(tokens), dim=1)
    loss = cross_entropy(network.logit_scale.exp() * features @ text.T, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def plain_coop_step(network, tokens, images, labels, context, optimizer):
    """One step of CoOp: images encoded again, every sentence at full length, loss read back.

    `tokens` (T, context_length) are "X X X X <name>."; `context` (M, W) stands in for the X.
    """
    with torch.no_grad():
        features = normalize(network.visual(images), dim=1)
    embedded = network.token_embedding(tokens)
    length = len(context)
    hidden = torch.cat([embedded[:, :1], context.expand(len(tokens), -1, -1), embedded[:, 1 + length :]], 1)
    hidden = network.transformer(hidden + network.positional_embedding, attn_mask=network.attn_mask)
    ends = network.ln_final(hidden)[torch.arange(len(tokens)), tokens.argmax(1)]
    text = normalize(ends @ network.text_projection, dim=1)
    loss = cross_entropy(network.logit_scale.exp() * features @ text.T, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
