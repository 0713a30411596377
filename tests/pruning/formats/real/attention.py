"""Networks of attention as people export them, with tiny widths."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class _TimmAttention(nn.Module):
    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused, self.scale = heads, fused, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, width = x.shape
        qkv = self.qkv(x).reshape(count, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            y = functional.scaled_dot_product_attention(q, k, v)
        else:
            y = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(count, tokens, width))


class _Block(nn.Module):
    def __init__(self, width: int, fused: bool) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, 1e-6), _TimmAttention(width, 2, fused)
        self.norm2 = nn.LayerNorm(width, 1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Dosovitskiy et al. 2021 in timm's writing: patches, class token, packed q, k and v."""

    def __init__(self, fused: bool = True) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 12, 4, 4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 12) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, 17, 12) * 0.02)
        self.blocks = nn.Sequential(_Block(12, fused), _Block(12, fused))
        self.norm, self.head = nn.LayerNorm(12, 1e-6), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


class TorchTransformer(nn.Module):
    """torch's own encoder layers: nn.MultiheadAttention with its packed projection."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 12)
        layer = nn.TransformerEncoderLayer(
            12, 2, 24, 0.1, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x)).mean(1))


class _BertLayer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = 2
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.dense = nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-12), nn.LayerNorm(width, 1e-12)
        self.intermediate, self.output = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(0.1)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, x.shape[2] // self.heads).permute(0, 2, 1, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self._split(self.query(x)), self._split(self.key(x)), self._split(self.value(x))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + mask
        y = (self.dropout(scores.softmax(-1)) @ v).permute(0, 2, 1, 3).contiguous()
        y = y.view(*y.shape[:2], -1)
        x = self.norm1(self.dropout(self.dense(y)) + x)
        return self.norm2(self.output(functional.gelu(self.intermediate(x))) + x)


class Bert(nn.Module):
    """Devlin et al. 2019 in transformers' writing; `tied`: a masked-word head on the embeddings."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.word, self.position = nn.Embedding(40, 12), nn.Embedding(16, 12)
        self.kind, self.norm = nn.Embedding(2, 12), nn.LayerNorm(12, 1e-12)
        self.layers = nn.ModuleList(_BertLayer(12) for _ in range(2))
        self.register_buffer("position_ids", torch.arange(16)[None])
        self.tied = tied
        if tied:
            self.transform, self.ln = nn.Linear(12, 12), nn.LayerNorm(12, 1e-12)
            self.decoder = nn.Linear(12, 40)
            self.decoder.weight = self.word.weight
        else:
            self.pooler, self.classifier = nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
    ) -> Tensor | tuple[Tensor, Tensor]:
        position = self.position(self.position_ids[:, : input_ids.shape[1]])
        x = self.norm(self.word(input_ids) + self.kind(token_type_ids) + position)
        mask = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        for layer in self.layers:
            x = layer(x, mask)
        if self.tied:
            return self.decoder(self.ln(functional.gelu(self.transform(x))))
        return self.classifier(torch.tanh(self.pooler(x[:, 0]))), x


class _Rms(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * wide.to(x.dtype)


def _turned(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), -1)


class _LlamaLayer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads, self.size = 4, width // 4
        self.norm1, self.norm2 = _Rms(width), _Rms(width)
        self.q_proj, self.o_proj = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.k_proj, self.v_proj = (nn.Linear(width, width // 2, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(width, 2 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        count, tokens, width = x.shape
        y = self.norm1(x)
        q = self.q_proj(y).view(count, tokens, self.heads, self.size).transpose(1, 2)
        k = self.k_proj(y).view(count, tokens, 2, self.size).transpose(1, 2)
        v = self.v_proj(y).view(count, tokens, 2, self.size).transpose(1, 2)
        q, k = q * cos + _turned(q) * sin, k * cos + _turned(k) * sin
        k, v = (
            z[:, :, None].expand(count, 2, 2, tokens, self.size).reshape(count, 4, tokens, -1)
            for z in (k, v)
        )
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o_proj(y.transpose(1, 2).reshape(count, tokens, width))
        y = self.norm2(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    """Touvron et al. 2023: rotary positions, grouped keys, RMS norms, gated feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 16)
        self.layers = nn.ModuleList(_LlamaLayer(16) for _ in range(2))
        self.norm, self.lm_head = _Rms(16), nn.Linear(16, 40, bias=False)
        self.register_buffer("frequencies", 1.0 / 10000 ** (torch.arange(0, 4, 2) / 4))

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)
        places = torch.arange(input_ids.shape[1], device=x.device).float()
        angles = torch.outer(places, self.frequencies)
        angles = torch.cat((angles, angles), -1)
        for layer in self.layers:
            x = layer(x, angles.cos(), angles.sin())
        return self.lm_head(self.norm(x))


class Swin(nn.Module):
    """Liu et al. 2021: windows by reshape, a cyclic shift with its mask, relative positions."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8)
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.table = nn.Parameter(torch.randn(9, 2) * 0.1)
        at = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")).flatten(1)
        apart = at[:, :, None] - at[:, None, :] + 1
        self.register_buffer("relative", (apart[0] * 3 + apart[1]).flatten())
        self.mlp = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.merge_norm, self.merge = nn.LayerNorm(32), nn.Linear(32, 12, bias=False)
        self.head = nn.Linear(12, 10)

    def _attend(self, x: Tensor, shift: int) -> Tensor:
        count, high, wide, width = x.shape
        if shift:
            x = torch.roll(x, (-shift, -shift), (1, 2))
        windows = x.view(count, high // 2, 2, wide // 2, 2, width).permute(0, 1, 3, 2, 4, 5)
        windows = windows.reshape(-1, 4, width)
        qkv = self.qkv(windows).reshape(-1, 4, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        bias = self.table[self.relative].view(4, 4, 2).permute(2, 0, 1)
        scores = q @ k.transpose(-2, -1) * (width // 2) ** -0.5 + bias
        if shift:
            zone = torch.zeros(1, high, wide, 1, device=x.device)
            zone[:, -shift:] += 1
            zone[:, :, -shift:] += 2
            zone = zone.view(1, high // 2, 2, wide // 2, 2, 1).permute(0, 1, 3, 2, 4, 5)
            zone = zone.reshape(-1, 4)
            blocked = (zone[:, None] - zone[:, :, None]).ne(0).float() * -100.0
            scores = scores.view(count, -1, 2, 4, 4) + blocked[None, :, None]
            scores = scores.view(-1, 2, 4, 4)
        y = self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, 4, width))
        y = y.view(count, high // 2, wide // 2, 2, 2, width).permute(0, 1, 3, 2, 4, 5)
        y = y.reshape(count, high, wide, width)
        return torch.roll(y, (shift, shift), (1, 2)) if shift else y

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.patch(x).permute(0, 2, 3, 1))
        for shift in (0, 1):
            x = x + self._attend(x, shift)
            x = x + self.mlp(x)
        corners = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        x = self.merge(self.merge_norm(torch.cat(corners, -1)))
        return self.head(x.mean((1, 2)))
