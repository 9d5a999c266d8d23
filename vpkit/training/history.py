"""The history of a run: one row an epoch."""

from collections.abc import Iterable

__all__ = ["History"]


class History:
    """One dict per epoch, in order; `history["val_loss"]` is that value over the epochs.

    `seconds` is the wall time of the training, if known; two histories are equal if their rows are.
    """

    def __init__(self, rows: Iterable[dict] = (), seconds: float | None = None):
        self.rows, self.seconds = [dict(row) for row in rows], seconds

    def add(self, **values) -> None:
        self.rows.append(values)

    def __getitem__(self, key: str) -> list:
        return [row[key] for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __eq__(self, other) -> bool:
        return isinstance(other, History) and self.rows == other.rows
