#!/usr/bin/env python3
"""Finetunes one model on the same files by `trireme train` and by the Hugging Face Trainer (bench/peers/finetune_hf.py), with the same
settings and seeds, in turns, and prints their scores and speeds.

  compare_finetunes.py BIN PYTHON TASK MODEL TRAIN DEV [--epochs 1] [--batch 32] [--rate 5e-5] [--length 128] [--seeds 1,2,3]
                       [--threads 2] [--max-steps N] [--preload FILE] [--ranks N --override KEY=VALUE ...]

BIN: the folder of `trireme`; PYTHON: of an environment with torch, transformers and accelerate; TASK: classify, ner, qa.
With --max-steps there is no evaluation: samples a second alone. --preload: an allocator for the peer (tcmalloc), as bench/run_all has it.
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import tempfile

CONFIGS = {"classify": ("bert-classify", "accuracy"), "ner": ("bert-ner", "f1"), "qa": ("bert-qa", "f1")}
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def run(command, **more):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout[-3000:]}")
    return done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bin", "python"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("task", choices=CONFIGS)
    for name in ("model", "train", "dev"):
        parser.add_argument(name)
    parser.add_argument("--epochs", default="1")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", default="5e-5")
    parser.add_argument("--length", default="128")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-steps", type=int)
    parser.add_argument("--preload")
    parser.add_argument("--only", choices=["ours", "peer"])
    parser.add_argument("--override", action="append", default=[])
    a = parser.parse_args()
    config, metric = CONFIGS[a.task]
    scores, speeds, peaks = {"trireme": [], "transformers": []}, {"trireme": [], "transformers": []}, {"trireme": [], "transformers": []}
    peer_env = {**os.environ, "OMP_NUM_THREADS": str(a.threads), "ATEN_CPU_CAPABILITY": "avx512", "TOKENIZERS_PARALLELISM": "false",
                **({"LD_PRELOAD": a.preload} if a.preload else {})}
    for seed in a.seeds.split(","):
        with tempfile.TemporaryDirectory() as folder:
            if a.only != "peer":
                length = [f"train.steps={a.max_steps}", "train.epochs=null", "data.validation=null", "train.evaluate_every_epochs=0",
                          "checkpoint.save_at_end=false"] if a.max_steps else [f"train.epochs={a.epochs}"]
                text = run(["/usr/bin/time", "-v", a.bin / "trireme", "train", ROOT / f"configs/{config}.yaml", f"model.from={a.model}",
                            f"data.train={a.train}", f"data.validation={a.dev}", f"data.sequence_length={a.length}", f"run.dir={folder}/run",
                            f"run.seed={seed}", f"run.threads={a.threads}", f"train.learning_rate={a.rate}", f"train.global_batch={a.batch}",
                            f"train.micro_batch={a.batch}", "checkpoint.keep_best=false", *length, *a.override])
                lines = [json.loads(line) for line in open(f"{folder}/run/metrics.jsonl")]
                summary = next(line for line in lines if line["type"] == "summary")
                steps = [line for line in lines if line["type"] == "step"]
                seconds = statistics.median(line["step_s"] for line in steps) if a.max_steps else summary["compute_s"] + summary["optimizer_s"] + summary["communication_s"]
                speeds["trireme"].append(a.batch / seconds if a.max_steps else summary["step"] * a.batch / seconds)
                peaks["trireme"].append(int(re.search(r"Maximum resident set size \(kbytes\): (\d+)", text)[1]) / 1024)
                if not a.max_steps:
                    scores["trireme"].append([line for line in lines if line["type"] == "evaluation"][-1][metric])
            if a.only != "ours":
                text = run(["/usr/bin/time", "-v", a.python, ROOT / "bench/peers/finetune_hf.py", a.task, a.model, a.train, a.dev, "--epochs", a.epochs,
                            "--batch", a.batch, "--rate", a.rate, "--length", a.length, "--seeds", seed, "--threads", a.threads,
                            *(["--max-steps", a.max_steps] if a.max_steps else [])], env=peer_env)
                result = json.loads(re.search(r'^\{"seed.*$', text, re.M)[0])
                speeds["transformers"].append(float(result["samples_per_s"]))
                peaks["transformers"].append(int(re.search(r"Maximum resident set size \(kbytes\): (\d+)", text)[1]) / 1024)
                if not a.max_steps:
                    scores["transformers"].append(result[metric])
        print(f"seed {seed}: " + "  ".join(f"{n} {metric} {v[-1]:.4f}" for n, v in scores.items() if v) + "  " +
              "  ".join(f"{n} {v[-1]:.2f} samples/s" for n, v in speeds.items() if v), flush=True)
    for name in scores:
        if not speeds[name]:
            continue
        spread = f" +- {statistics.stdev(scores[name]):.4f}" if len(scores[name]) > 1 else ""
        score = f"{metric} {statistics.mean(scores[name]):.4f}{spread}  " if scores[name] else ""
        print(f"{name:14}{score}{statistics.median(speeds[name]):.2f} samples/s  peak {statistics.median(peaks[name]):.0f} MiB")
    if speeds["trireme"] and speeds["transformers"]:
        print(f"ratio of speeds {statistics.median(s / p for s, p in zip(speeds['trireme'], speeds['transformers'])):.2f}, "
              f"of peaks {statistics.median(s / p for s, p in zip(peaks['trireme'], peaks['transformers'])):.2f}")


if __name__ == "__main__":
    main()
