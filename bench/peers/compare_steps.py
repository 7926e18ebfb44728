"""Alternates training steps of several programs and prints medians and ratios, so that noise meets all alike.

  python compare_steps.py BUILD/bin PYTHON [batch=4] [length=64] [micro_batches=1] [rounds=9] [threads=2] [preload=LIBRARY]
                          [clip=0] [llmc=EXECUTABLE] [only=NAME,NAME] [exactly=NAME,NAME]

Every round runs one step of each program: the floor, Trireme at layouts and settings, and PyTorch (which PYTHON has) in
its best known settings. preload is an allocator for PyTorch (tcmalloc: glibc's costs it many page faults). llmc is a
build of llmc_step.c and adds "llm.c"; any program that keeps to the contract at the top of that file will do. Left out
unless named: Trireme with two ranks, with recomputation, with products in bf16x3, bf16 or f16 (run.matmul_precision),
and with threads pinned to cores (run.pin). `only` names the beginnings of the programs' names, `exactly` the whole names. All take the same
tokens a step: with two data ranks each has half of the batch. Ranks have one thread each. The floor, PyTorch and llm.c
know no micro-batches, llm.c no clipping. README.md says how to set PYTHON up.
"""
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

MPIRUN = ["mpirun", "--oversubscribe", "--bind-to", "none"] + (["--allow-run-as-root"] if os.geteuid() == 0 else [])


class Program:
    """Takes one step for each line it is sent and answers with milliseconds and peak resident MiB."""

    def __init__(self, name, command, environment, ranks=0):
        self.name, self.times, self.peak, self.folder = name, [], 0.0, None
        if ranks:  # every rank waits for a pipe of its own, asleep
            self.folder = tempfile.TemporaryDirectory()
            pipes = [f"{self.folder.name}/{r}" for r in range(ranks)]
            for pipe in pipes:
                os.mkfifo(pipe)
            command = [*command, f"paced={self.folder.name}"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, **environment})
        if not any(line.strip() == "ready" for line in self.process.stdout):  # libraries may print first
            sys.exit(f"{name} ended before its first step: {' '.join(command)}")
        self.ask = [open(pipe, "w") for pipe in pipes] if ranks else [self.process.stdin]

    def step(self, keep):
        for pipe in self.ask:
            pipe.write("\n")
            pipe.flush()
        answer = self.process.stdout.readline().split()
        if len(answer) != 2:
            sys.exit(f"{self.name} ended during a step")
        milliseconds, self.peak = map(float, answer)
        if keep:
            self.times.append(milliseconds)

    def median(self):
        return statistics.median(self.times)

    def end(self):
        for pipe in self.ask:
            pipe.close()
        self.process.wait()


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    programs, python = pathlib.Path(sys.argv[1]), sys.argv[2]
    args = {"batch": "4", "length": "64", "micro_batches": "1", "rounds": "9", "threads": "2", "preload": "", "only": "",
            "exactly": "", "clip": "0", "llmc": ""}
    for word in sys.argv[3:]:
        name, _, value = word.partition("=")
        if name not in args:
            sys.exit(f"compare_steps.py: unknown argument {word}; known are {', '.join(args)}")
        args[name] = value
    batch, length = f"batch={args['batch']}", f"length={args['length']}"
    threads = {"OMP_NUM_THREADS": args["threads"]}
    tuned = {**threads, "ATEN_CPU_CAPABILITY": "avx512", **({"LD_PRELOAD": args["preload"]} if args["preload"] else {})}
    step_bench = [str(programs / "step_bench"), length, f"micro_batches={args['micro_batches']}", f"clip={args['clip']}"]
    one_process = [*step_bench, batch, f"threads={args['threads']}"]
    two_ranks = [*MPIRUN, "-np", "2", *step_bench, "threads=1"]
    half = f"batch={max(1, int(args['batch']) // 2)}"
    paced = [batch, length, f"threads={args['threads']}", "paced=1"]
    peer = [python, str(pathlib.Path(__file__).with_name("pytorch_gpt2.py")), *paced, f"clip={args['clip']}"]
    every = {
        "floor": ([str(programs / "step_floor"), *paced], threads),
        "trireme": (one_process, threads, 1),
        "trireme bf16x3": ([*one_process, "precision=bf16x3"], threads, 1),
        "trireme bf16": ([*one_process, "precision=bf16"], threads, 1),
        "trireme f16": ([*one_process, "precision=f16"], threads, 1),
        "trireme recompute=selective": ([*one_process, "recompute=selective"], threads, 1),
        "trireme recompute=full": ([*one_process, "recompute=full"], threads, 1),
        "trireme pinned": ([*one_process, "pin=on"], threads, 1),
        "trireme dp=2 zero=1 pinned": ([*two_ranks, half, "zero=1", "pin=on"], {}, 2),
        "trireme tp=2 pinned": ([*two_ranks, batch, "tensor=2", "pin=on"], {}, 2),
        "trireme dp=2": ([*two_ranks, half], {}, 2),
        "trireme dp=2 zero=1": ([*two_ranks, half, "zero=1"], {}, 2),
        "trireme dp=2 zero=2": ([*two_ranks, half, "zero=2"], {}, 2),
        "trireme tp=2": ([*two_ranks, batch, "tensor=2"], {}, 2),
        "trireme pp=2": ([*two_ranks, batch, "pipeline=2"], {}, 2),
        "pytorch fused AdamW": ([*peer, "adamw=fused"], tuned),
        "pytorch foreach AdamW": ([*peer, "adamw=foreach"], tuned),
        "pytorch plain attention": ([*peer, "adamw=fused", "attention=plain"], tuned),
        "pytorch compiled": ([*peer, "adamw=fused", "compile=1"], tuned),
    }
    if args["llmc"]:
        every["llm.c"] = ([args["llmc"], batch, length], threads)
    wanted = [n for n in every if (any(n.startswith(o) for o in args["only"].split(",")) if args["only"]
                                   else n in ("floor", "trireme", "llm.c") or n.startswith("pytorch"))]
    if args["exactly"]:
        wanted = args["exactly"].split(",")
        for name in wanted:
            if name not in every:
                sys.exit(f"compare_steps.py: exactly={name}: known are {', '.join(every)}")
    running = [Program(n, *every[n]) for n in wanted]
    for turn in range(int(args["rounds"]) + 1):
        for program in running:
            program.step(keep=turn > 0)
            time.sleep(0.05)  # idle threads of this one go to sleep
    ours = next((p for p in running if p.name == "trireme"), running[0])
    tokens = int(args["batch"]) * int(args["length"]) * int(args["micro_batches"])
    for p in running:
        speed = [b / a for a, b in zip(ours.times, p.times)]
        print(f"{p.name:32} {p.median():7.0f} ms  best {min(p.times):7.0f}  {tokens / p.median() * 1e3:7.1f} tokens/s  "
              f"its time over ours {statistics.median(speed):5.2f}  peak {p.peak:6.0f} MiB, ours {ours.peak / p.peak:4.2f} of it")
    for p in running:
        p.end()


main()
