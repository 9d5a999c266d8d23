"""The frozen networks of the page *Try it* as ONNX graphs: pixels in [0, 1] in, what the page shows out.

Weights are stored in half precision and cast back when the graph is loaded, so a file is half as large and every sum is
still computed in float32.
"""

import logging
import warnings

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.functional import normalize

from vpkit.methods.dpt import DualPromptClassifier
from vpkit.models.clip import FrozenCLIP, clip_logits
from vpkit.models.frozen import FrozenModel

SMALLEST_HALVED = 64  # values; a cast costs more bytes than it saves on biases of a few


class ImageFeatures(nn.Module):
    """(B, 3, s, s) in [0, 1] to unit features (B, D)."""

    def __init__(self, clip: FrozenCLIP):
        super().__init__()
        self.clip = clip

    def forward(self, images: Tensor) -> Tensor:
        return self.clip.encode_image(images)


class TextFeatures(nn.Module):
    """Embedded sentences (N, L, W) and the places (N,) of their end tokens to unit features (N, D)."""

    def __init__(self, clip: FrozenCLIP):
        super().__init__()
        self.network = clip.network

    def forward(self, embedded: Tensor, end: Tensor) -> Tensor:
        """As `FrozenCLIP.encode_embedded`, whose indexing would fix the number of sentences in the graph."""
        network, length = self.network, embedded.shape[1]
        hidden = embedded + network.positional_embedding[:length]
        hidden = network.ln_final(network.transformer(hidden, attn_mask=network.attn_mask[:length, :length]))
        last = hidden.gather(1, end[:, None, None].expand(-1, 1, hidden.shape[2]))[:, 0]
        return normalize(last @ network.text_projection, dim=-1)


class DualPromptAttention(nn.Module):
    """DPT with everything it looks at: (B, 3, s, s) in [0, 1] to logits, candidates and attention maps.

    Returns:
        plain_logits (B, T) of zero-shot CLIP; chosen (B, K), the candidates they name; logits (B, T) of DPT; plain_map
        and map (B, N), the class token's attention to the patches in the last block, without and with the prompt, each
        summing to 1; candidate_maps (B, K, N), the attention of each candidate's token, scaled likewise.
    """

    def __init__(self, classifier: DualPromptClassifier):
        super().__init__()
        assert classifier.tokens is not None
        assert classifier.text is not None
        self.classifier, self.clip, self.tokens = classifier, classifier.clip, classifier.tokens
        with torch.no_grad():  # the learned words' features: they do not depend on the image
            self.register_buffer("raw", classifier.text(unit=False))
        (block,) = self.tokens._module_of
        self.blocks = list(self.clip.network.visual.transformer.resblocks)
        assert block == len(self.blocks), "the last block's tokens are the class-aware ones"

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        first = self.clip.embed_patches(images)
        hidden = first
        for block in self.blocks[:-1]:
            hidden = block(hidden)
        plain_map = self._class_map(hidden)
        plain = self.clip.pool_tokens(self.blocks[-1](hidden))
        plain_logits = clip_logits(plain, self.classifier.written, self.clip.logit_scale)
        chosen = plain_logits.topk(self.classifier.candidates, dim=1).indices

        kept, hidden = first.shape[1], first
        for number, block in enumerate(self.blocks[:-1], 1):
            learned = self.tokens.tokens[str(number)].expand(hidden.shape[0], -1, -1)
            hidden = block(torch.cat([hidden, learned], 1))[:, :kept]
        raw, aware = self.get_buffer("raw"), self.tokens.class_aware[0]
        queries = raw[chosen]
        keys = torch.cat([hidden, aware.bank.expand(hidden.shape[0], -1, -1)], 1)
        alike = aware.to_query(aware.query(queries)) @ aware.to_key(keys).transpose(1, 2) / aware.key_width**0.5
        looked = alike.softmax(-1)[:, :, 1:kept]
        hidden = torch.cat([hidden, aware(hidden, queries).tokens], 1)
        features = self.clip.pool_tokens(self.blocks[-1](hidden)[:, :kept])
        logits = clip_logits(features, normalize(raw, dim=1), self.clip.logit_scale)
        return (
            plain_logits, chosen, logits, plain_map, self._class_map(hidden), looked / looked.sum(2, keepdim=True)
        )  # fmt: skip

    def _class_map(self, hidden: Tensor) -> Tensor:
        """As `vpkit.analysis.class_attention`, of the last block, for what enters it."""
        looking = self.blocks[-1]
        seen = looking.ln_1(hidden)
        _, weights = looking.attn(seen[:, :1], seen, seen, need_weights=True)
        patches = self.clip.network.visual.positional_embedding.shape[0] - 1
        found = weights[:, 0, 1 : 1 + patches]
        return found / found.sum(1, keepdim=True)


def frozen_graph(model: FrozenModel) -> bytes:
    """A classifier of images of any side: images (B, 3, h, h) to logits (B, S)."""
    side = dict.fromkeys((0, 2, 3), Dim.DYNAMIC)
    return _exported(model, (torch.rand(2, 3, 112, 112),), ["images"], ["logits"], (side,))


def image_graph(clip: FrozenCLIP) -> bytes:
    """A CLIP's image tower: images (B, 3, s, s) to features (B, D)."""
    side = clip.image_size
    return _exported(
        ImageFeatures(clip), (torch.rand(2, 3, side, side),), ["images"], ["features"], ({0: Dim.DYNAMIC},)
    )


def text_graph(clip: FrozenCLIP) -> bytes:
    """A CLIP's text tower behind its token table: embedded (N, L, W) and end (N,) to features (N, D)."""
    example = torch.rand(3, 9, clip.text_width), torch.tensor([8, 6, 7])
    shapes = {0: Dim("count"), 1: Dim("length", min=2, max=clip.context_length)}, {0: Dim("count")}
    return _exported(TextFeatures(clip), example, ["embedded", "end"], ["features"], shapes)


def attention_graph(classifier: DualPromptClassifier) -> bytes:
    """DPT and its attention: see `DualPromptAttention`."""
    side = classifier.clip.image_size
    names = ["plain_logits", "chosen", "logits", "plain_map", "map", "candidate_maps"]
    graph = DualPromptAttention(classifier)
    return _exported(graph, (torch.rand(2, 3, side, side),), ["images"], names, ({0: Dim.DYNAMIC},))


def _exported(module: nn.Module, example: tuple, inputs: list[str], outputs: list[str], shapes: tuple) -> bytes:
    import onnx

    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # it names every step of folding that it leaves out
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(
            module.eval(), example, dynamo=True, verbose=False, input_names=inputs, output_names=outputs,
            dynamic_shapes=shapes,
        )  # fmt: skip
    assert program is not None
    graph = program.model_proto
    halve(graph)
    onnx.checker.check_model(graph)
    return graph.SerializeToString()


def halve(model) -> None:
    """Store an onnx `ModelProto`'s float32 weights as float16, each behind a cast; in place.

    Raises:
        ValueError: a weight that float16 cannot hold.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(weight)
        if values.size < SMALLEST_HALVED:
            continue
        with np.errstate(over="ignore"):  # what does not fit is said below
            half = values.astype(np.float16)
        if (np.isfinite(values) & ~np.isfinite(half)).any():
            raise ValueError(f"weight {weight.name!r} has values up to {abs(values).max():g}: float16 ends at 65504")
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for info in [value for value in model.graph.value_info if value.name in {cast.output[0] for cast in casts}]:
        model.graph.value_info.remove(info)
