"""Write 300 results; print what a reader finds. Killed at a random moment."""

from time import perf_counter

import vpkit

print("ready", flush=True)
started = perf_counter()
history = vpkit.training.History([{"epoch": epoch, "train_loss": 1 / epoch} for epoch in range(1, 50)])
for i in range(300):
    vpkit.book.save_run(
        f"runs/{i % 60}.json", method="ILM", parameters={"seed": i}, metrics={"test_accuracy": i / 300}, history=history
    )
print(perf_counter() - started)
runs = vpkit.book.load_runs("runs")
print(len(runs), sorted(runs.seed), round(runs.test_accuracy.sum(), 6))
