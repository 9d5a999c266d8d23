"""CLIPs with the shapes of the real ones, every size shrunk, and DPT on one."""

import torch

from vpkit.methods import DualPromptClassifier
from vpkit.prompts import ClassAwareTokens, ContextPrompt, TokenPrompt

SMALL = {
    "embed_dim": 32,
    "vision_cfg": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
TEXT = {"context_length": 28, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
SMALL_VIT = {
    "embed_dim": 24,
    "vision_cfg": {"layers": 3, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32},
    "text_cfg": TEXT,
}
NAMES = ("cat", "dog", "cow", "sheep")


def dpt(clip, candidates=2, block=3, **options):
    torch.manual_seed(1)
    width = clip.network.visual.positional_embedding.shape[1]
    aware = ClassAwareTokens(clip.embed_dim, width, len(NAMES))
    tokens = TokenPrompt(clip, 2, class_aware={block: aware})
    written = clip.encode_text([f"a photo of a {name}." for name in NAMES])
    return DualPromptClassifier(clip, tokens, written, ContextPrompt(clip, NAMES, 3), candidates, **options)
