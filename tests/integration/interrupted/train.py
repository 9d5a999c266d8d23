"""Train a small prompt with a checkpoint after every epoch; print the history. Killed at a random moment."""

import json
import sys
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from conftest import small_network

import vpkit

torch.set_num_threads(1)
torch.manual_seed(0)
images = torch.randint(0, 256, (64, 3, 16, 16), dtype=torch.uint8)
data = vpkit.ImageSet(images, torch.arange(64) % 4, tuple("abcd"))
model = vpkit.models.FrozenModel(small_network(), [f"source {s}" for s in range(12)], image_size=16)
classifier = vpkit.PromptedClassifier(
    vpkit.prompts.PatchPrompt(16, 8, "random"), model, vpkit.mappings.random_mapping(12, 4)
)
optimizer = torch.optim.Adam(classifier.prompt.parameters(), lr=0.1)
train = data.batches(16, shuffle=True, generator=torch.Generator().manual_seed(7))

print("ready", flush=True)
started = perf_counter()
with open("printed.txt", "w") as sys.stdout:  # the rows of every epoch
    history = vpkit.fit(classifier, train, data.batches(64), optimizer, 40, checkpoint="run.safetensors")
sys.stdout = sys.__stdout__
print(perf_counter() - started)
print(json.dumps(history.rows))
