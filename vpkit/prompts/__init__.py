"""What is learned, or pasted: pixels, context words, tokens, class names as images; and the sentences around them.

A prompt is a small `nn.Module` and knows nothing of how it is trained.
"""

from vpkit.prompts.context import ContextPrompt, GeneratedContext, MetaNet, WrittenText, coop_context
from vpkit.prompts.files import load_prompt, save_prompt, study_prompts
from vpkit.prompts.low_dimensional import CoarsePrompt, CosinePrompt, LowRankPrompt, MaskedPrompt
from vpkit.prompts.name_strips import paste, render_class_names, strip_offsets
from vpkit.prompts.patch_embeddings import PatchEmbeddings, cache_patches, plain_features
from vpkit.prompts.pixels import ExpandPrompt, PadPrompt, PatchPrompt, vp_prompt
from vpkit.prompts.templates import clip_templates, fill_templates
from vpkit.prompts.tokens import ClassAwareTokens, TokenPrompt

__all__ = [
    "ClassAwareTokens",
    "CoarsePrompt",
    "ContextPrompt",
    "CosinePrompt",
    "ExpandPrompt",
    "GeneratedContext",
    "LowRankPrompt",
    "MaskedPrompt",
    "MetaNet",
    "PadPrompt",
    "PatchEmbeddings",
    "PatchPrompt",
    "TokenPrompt",
    "WrittenText",
    "cache_patches",
    "clip_templates",
    "coop_context",
    "fill_templates",
    "load_prompt",
    "paste",
    "plain_features",
    "render_class_names",
    "save_prompt",
    "strip_offsets",
    "study_prompts",
    "vp_prompt",
]
