"""One AdamW step of GPT-2 124M in f32 with PyTorch: the peer of step_bench.

  python pytorch_gpt2.py [batch=4] [length=64] [steps=7] [threads=2] [attention=sdpa|plain] [compile=0|1]
                         [adamw=fused|foreach|loop] [clip=0] [paced=0|1]

Prints the median step and the peak resident memory. paced=1 takes one step for each line of standard input and
answers with its milliseconds, so that compare_steps.py can alternate programs.
"""
import math
import resource
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

VOCABULARY, WIDTH, LAYERS, HEADS, POSITIONS = 50257, 768, 12, 12, 1024


class Attention(nn.Module):
    def __init__(self, fused):
        super().__init__()
        self.fused = fused
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = q @ k.transpose(-2, -1) / math.sqrt(WIDTH // HEADS)
            hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
            y = scores.masked_fill(hidden, float("-inf")).softmax(-1) @ v
        return self.out(y.transpose(1, 2).reshape(batch, length, WIDTH))


class Block(nn.Module):
    def __init__(self, fused):
        super().__init__()
        self.norm_1, self.attention = nn.LayerNorm(WIDTH), Attention(fused)
        self.norm_2 = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        x = x + self.attention(self.norm_1(x))
        return x + self.down(F.gelu(self.up(self.norm_2(x)), approximate="tanh"))


class Gpt2(nn.Module):
    def __init__(self, fused):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(POSITIONS, WIDTH)
        self.blocks = nn.ModuleList(Block(fused) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, 0.0, 0.02)

    def forward(self, ids, labels):
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.tokens.weight)
        return F.cross_entropy(logits.view(-1, VOCABULARY), labels.view(-1))


def main():
    args = {"batch": "4", "length": "64", "steps": "7", "threads": "2", "attention": "sdpa", "compile": "0",
            "adamw": "fused", "clip": "0", "paced": "0"}
    for word in sys.argv[1:]:
        name, _, value = word.partition("=")
        if name not in args:
            sys.exit(f"pytorch_gpt2.py: unknown argument {word}; known are {', '.join(args)}")
        args[name] = value
    torch.set_num_threads(int(args["threads"]))
    torch.set_float32_matmul_precision("highest")
    torch.manual_seed(1)
    model = Gpt2(args["attention"] == "sdpa")
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    how = {"fused": {"fused": True}, "foreach": {"foreach": True}, "loop": {"foreach": False}}[args["adamw"]]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
                                  lr=1e-4, **how)
    loss_of = torch.compile(model) if args["compile"] == "1" else model
    shape = (int(args["batch"]), int(args["length"]))
    clip = float(args["clip"])
    ids, labels = (torch.randint(0, VOCABULARY, shape) for _ in range(2))

    def step():
        begin = time.perf_counter()
        loss_of(ids, labels).backward()
        if clip > 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return (time.perf_counter() - begin) * 1e3

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    for _ in range(2):
        step()
    if args["paced"] == "1":
        print("ready", flush=True)
        for _ in sys.stdin:
            print(f"{step():.3f} {peak():.0f}", flush=True)
        return
    times = [step() for _ in range(int(args["steps"]))]
    print(f"PyTorch {torch.__version__} batch={shape[0]} length={shape[1]} attention={args['attention']} "
          f"compile={args['compile']} adamw={args['adamw']}: step {statistics.median(times):.0f} ms, "
          f"peak resident {peak():.0f} MiB")


main()
