"""Alternates training steps of several programs and prints medians and ratios, so that noise meets all alike.

  python compare_steps.py BUILD/bin PYTHON [batch=4] [length=64] [rounds=9] [threads=2] [preload=LIBRARY]
                          [clip=0] [only=NAME,NAME] [precision=bf16x3,bf16]

precision adds Trireme with those of run.matmul_precision; they need AMX. PYTHON has torch; preload is an allocator for it (tcmalloc: glibc's costs PyTorch many page faults). Every round runs
one step of each: the floor, Trireme, and PyTorch in its best known settings. README.md says how to set PYTHON up.
"""
import os
import pathlib
import statistics
import subprocess
import sys
import time


class Program:
    """Takes one step for each line it is sent and answers with milliseconds and peak resident MiB."""

    def __init__(self, name, command, environment):
        self.name, self.times, self.peak = name, [], 0.0
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, **environment})
        for line in self.process.stdout:  # libraries may print first
            if line.strip() == "ready":
                return
        sys.exit(f"{name} ended before its first step: {' '.join(command)}")

    def step(self, keep):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        milliseconds, self.peak = map(float, self.process.stdout.readline().split())
        if keep:
            self.times.append(milliseconds)

    def median(self):
        return statistics.median(self.times)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    programs, python = pathlib.Path(sys.argv[1]), sys.argv[2]
    args = {"batch": "4", "length": "64", "rounds": "9", "threads": "2", "preload": "", "only": "", "clip": "0", "precision": ""}
    for word in sys.argv[3:]:
        name, _, value = word.partition("=")
        if name not in args:
            sys.exit(f"compare_steps.py: unknown argument {word}; known are {', '.join(args)}")
        args[name] = value
    size = [f"batch={args['batch']}", f"length={args['length']}", f"threads={args['threads']}", "paced=1"]
    peer = [python, str(pathlib.Path(__file__).with_name("pytorch_gpt2.py")), *size, f"clip={args['clip']}"]
    threads = {"OMP_NUM_THREADS": args["threads"]}
    tuned = {**threads, "ATEN_CPU_CAPABILITY": "avx512", **({"LD_PRELOAD": args["preload"]} if args["preload"] else {})}
    every = {
        "floor": ([str(programs / "step_floor"), *size], threads),
        "trireme": ([str(programs / "step_bench"), *size, f"clip={args['clip']}"], threads),
        **{f"trireme {p}": ([str(programs / "step_bench"), *size, f"clip={args['clip']}", f"precision={p}"], threads)
           for p in args["precision"].split(",") if p},
        "pytorch fused AdamW": ([*peer, "adamw=fused"], tuned),
        "pytorch foreach AdamW": ([*peer, "adamw=foreach"], tuned),
        "pytorch plain attention": ([*peer, "adamw=fused", "attention=plain"], tuned),
        "pytorch compiled": ([*peer, "adamw=fused", "compile=1"], tuned),
    }
    wanted = [n for n in every if not args["only"] or any(n.startswith(o) for o in args["only"].split(","))]
    running = [Program(n, *every[n]) for n in wanted]
    for turn in range(int(args["rounds"]) + 1):
        for program in running:
            program.step(keep=turn > 0)
            time.sleep(0.05)  # idle threads of this one go to sleep
    ours = next((p for p in running if p.name == "trireme"), running[0])
    tokens = int(args["batch"]) * int(args["length"])
    for p in running:
        speed = [b / a for a, b in zip(ours.times, p.times)]
        print(f"{p.name:32} {p.median():7.0f} ms  best {min(p.times):7.0f}  {tokens / p.median() * 1e3:7.1f} tokens/s  "
              f"its time over ours {statistics.median(speed):5.2f}  peak {p.peak:6.0f} MiB, ours {ours.peak / p.peak:4.2f} of it")
    for p in running:
        p.process.stdin.close()
        p.process.wait()


main()
