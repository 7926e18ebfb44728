"""One training step of GPT-2 124M or of the 1.3B Llama on a CUDA device with PyTorch: the peer of `gpu_bench step`.

  python3 pytorch_step.py [model=gpt2|llama] [batch=16] [length=1024] [compile=1]

bf16 by autocast over f32 weights, torch.compile, scaled_dot_product_attention, fused AdamW, gradients clipped. Prints
{"part": "ready"}, then a step's seconds for each line of standard input; both as JSON.
"""
import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F


class LayerNormBlock(nn.Module):
    """GPT-2's."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, _):
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm_1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm_2(x)), approximate="tanh"))


def rotate(x, angles):
    cos, sin = angles
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)


class RmsNormBlock(nn.Module):
    """Llama's."""

    def __init__(self, width, heads, inner):
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.RMSNorm(width, 1e-6), nn.RMSNorm(width, 1e-6)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.gate_up, self.down = nn.Linear(width, 2 * inner, bias=False), nn.Linear(inner, width, bias=False)

    def forward(self, x, angles):
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm_1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(rotate(q, angles), rotate(k, angles), v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        gate, up = self.gate_up(self.norm_2(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Model(nn.Module):
    def __init__(self, name, length):
        super().__init__()
        if name == "gpt2":
            self.vocabulary, width, heads = 50257, 768, 12
            self.blocks = nn.ModuleList(LayerNormBlock(width, heads) for _ in range(12))
            self.positions, self.norm = nn.Embedding(1024, width), nn.LayerNorm(width)
        else:
            self.vocabulary, width, heads = 32000, 2048, 16
            self.blocks = nn.ModuleList(RmsNormBlock(width, heads, 5504) for _ in range(24))
            self.positions, self.norm = None, nn.RMSNorm(width, 1e-6)
        self.tokens = nn.Embedding(self.vocabulary, width)
        self.head = None if name == "gpt2" else nn.Linear(width, self.vocabulary, bias=False)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, 0.0, 0.02)
        half = width // heads // 2
        turns = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(half) / half)
        self.register_buffer("cos", turns.cos(), persistent=False)
        self.register_buffer("sin", turns.sin(), persistent=False)

    def forward(self, ids, labels):
        x = self.tokens(ids)
        if self.positions is not None:
            x = x + self.positions(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x, (self.cos, self.sin))
        x = self.norm(x)
        logits = F.linear(x, self.tokens.weight) if self.head is None else self.head(x)
        return F.cross_entropy(logits.view(-1, self.vocabulary).float(), labels.view(-1))


def main():
    args = {"model": "gpt2", "batch": "16", "length": "1024", "compile": "1"}
    for word in sys.argv[1:]:
        name, _, value = word.partition("=")
        if name not in args:
            sys.exit(f"pytorch_step.py: unknown argument {word}; known are {', '.join(args)}")
        args[name] = value
    if not torch.cuda.is_available():
        sys.stderr.write("pytorch_step.py: no device: torch.cuda.is_available() is false\n")
        sys.exit(3)
    torch.manual_seed(1)
    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda")
    length = int(args["length"])
    with device:
        model = Model(args["model"], length)
        shape = (int(args["batch"]), length)
        ids, labels = (torch.randint(0, model.vocabulary, shape) for _ in range(2))
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
                                  lr=1e-4, fused=True)
    loss_of = torch.compile(model) if args["compile"] == "1" else model

    def step():
        torch.cuda.synchronize()
        begin = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            loss = loss_of(ids, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        return time.perf_counter() - begin

    for _ in range(3):
        step()
    print(json.dumps({"part": "ready", "version": torch.__version__}), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"part": "step", "seconds": step(), "peak_bytes": torch.cuda.max_memory_allocated()}), flush=True)


if __name__ == "__main__":
    main()
