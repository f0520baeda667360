"""A small UNet whose tensors are named as diffusers names those of Stable Diffusion XL."""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import group_norm, interpolate, scaled_dot_product_attention, silu

WIDTH, CONTEXT, GROUPS = 16, 24, 4


class Resnet(nn.Module):
    """A residual block with a shift by the time."""

    def __init__(self, inside: int, out: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, inside)
        self.conv1 = nn.Conv2d(inside, out, 3, padding=1)
        self.time_emb_proj = nn.Linear(4 * WIDTH, out)
        self.norm2 = nn.GroupNorm(GROUPS, out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inside, out, 1) if inside != out else nn.Identity()

    def forward(self, image: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """An image [batch, inside, height, width] becomes one of `out` channels."""
        hidden = self.conv1(silu(self.norm1(image)))
        hidden = hidden + self.time_emb_proj(silu(time))[:, :, None, None]
        return self.conv_shortcut(image) + self.conv2(silu(self.norm2(hidden)))


class Attention(nn.Module):
    """One head of attention over a context."""

    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width), nn.Identity()])

    def forward(self, hidden: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Rows [batch, n, width] look at a context [batch, m, context]."""
        seen = scaled_dot_product_attention(
            self.to_q(hidden), self.to_k(context), self.to_v(context)
        )
        return self.to_out[0](seen)


class TransformerBlock(nn.Module):
    """Attention to itself, to the text, and a gated feed-forward network."""

    ff: Any

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attn1, self.attn2 = Attention(width, width), Attention(width, CONTEXT)
        gate = nn.Module()
        gate.proj = nn.Linear(width, 8 * width)
        self.ff = nn.Module()
        self.ff.net = nn.ModuleList([gate, nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, hidden: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Rows [batch, n, width] stay of that shape."""
        normed = self.norm1(hidden)
        hidden = hidden + self.attn1(normed, normed)
        hidden = hidden + self.attn2(self.norm2(hidden), context)
        value, gate = self.ff.net[0].proj(self.norm3(hidden)).chunk(2, -1)
        return hidden + self.ff.net[2](value * nn.functional.gelu(gate))


class Transformer(nn.Module):
    """Transformer blocks over the pixels of an image."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width)
        self.proj_in, self.proj_out = nn.Linear(width, width), nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList(TransformerBlock(width) for _ in range(depth))

    def forward(self, image: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """An image [batch, width, h, w] stays of that shape."""
        rows = self.proj_in(group_norm(image, GROUPS).flatten(2).transpose(1, 2))
        for block in self.transformer_blocks:
            rows = block(rows, context)
        return image + self.proj_out(rows).transpose(1, 2).reshape(image.shape)


class Block(nn.Module):
    """A block of the way down, of the middle, or of the way up."""

    def __init__(self, widths: list[tuple[int, int]], depth: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(Resnet(inside, out) for inside, out in widths)
        if depth:
            out = widths[-1][1]
            self.attentions = nn.ModuleList(Transformer(out, depth) for _ in widths[:1])

    def forward(
        self, image: torch.Tensor, time: torch.Tensor, context: torch.Tensor
    ) -> torch.Tensor:
        """An image goes through the block."""
        for position, resnet in enumerate(self.resnets):
            image = resnet(image, time)
            if position == 0 and hasattr(self, "attentions"):
                image = self.attentions[0](image, context)
        return image


class TinyUNet(nn.Module):
    """A UNet of two blocks down, a middle and two blocks up."""

    time_embedding: Any

    def __init__(self) -> None:
        super().__init__()
        wide = 2 * WIDTH
        self.conv_in = nn.Conv2d(4, WIDTH, 3, padding=1)
        self.time_embedding = nn.Module()
        self.time_embedding.linear_1 = nn.Linear(WIDTH, 4 * WIDTH)
        self.time_embedding.linear_2 = nn.Linear(4 * WIDTH, 4 * WIDTH)
        self.down_blocks = nn.ModuleList(
            [Block([(WIDTH, WIDTH), (WIDTH, WIDTH)], 0), Block([(WIDTH, wide), (wide, wide)], 2)]
        )
        self.mid_block = Block([(wide, wide), (wide, wide)], 2)
        self.up_blocks = nn.ModuleList(
            [Block([(2 * wide, wide), (wide, wide)], 2), Block([(wide + WIDTH, WIDTH)], 0)]
        )
        self.conv_norm_out = nn.GroupNorm(GROUPS, WIDTH)
        self.conv_out = nn.Conv2d(WIDTH, 4, 3, padding=1)

    def forward(
        self, image: torch.Tensor, time: torch.Tensor, context: torch.Tensor
    ) -> torch.Tensor:
        """An image [batch, 4, h, w], a time [batch, WIDTH], a text [batch, m, CONTEXT]: noise."""
        at = self.time_embedding.linear_2(silu(self.time_embedding.linear_1(time)))
        first = self.down_blocks[0](self.conv_in(image), at, context)
        second = self.down_blocks[1](nn.functional.avg_pool2d(first, 2), at, context)
        middle = self.mid_block(second, at, context)
        up = self.up_blocks[0](torch.cat([middle, second], 1), at, context)
        up = self.up_blocks[1](torch.cat([interpolate(up, scale_factor=2), first], 1), at, context)
        return self.conv_out(silu(self.conv_norm_out(up)))
