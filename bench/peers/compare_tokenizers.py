"""Encoding text by lines, one thread each: ours and Hugging Face's tokenizers, in turns.

    PYTHON bench/peers/compare_tokenizers.py [--bin build/bin] [--rounds 5] TOKENIZER TEXT

PYTHON has the package `tokenizers`. TOKENIZER is a tokenizer.json, a vocab.txt of BERT, or a folder with either. MB of text
a second of CPU time, medians of the rounds, each the best of several runs; "batch" is the peer's encode_batch. The numbers of
ids of both are printed too.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors  # noqa: E402


def peer_of(path):
    if path.is_dir():
        path = path / ("tokenizer.json" if (path / "tokenizer.json").exists() else "vocab.txt")
    if path.suffix == ".json":
        return Tokenizer.from_file(str(path))
    words = path.read_text("utf8").rstrip("\n").split("\n")
    vocabulary = {word: i for i, word in enumerate(words)}
    lower = not any(c.isascii() and c.isupper() for w in words if not w.startswith("[") for c in w)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(True, True, None, lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True)
                                  for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")])
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    return tokenizer


def best(work, runs=2):
    times = []
    for _ in range(runs):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return min(times)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bin", type=pathlib.Path, default=pathlib.Path("build/bin"))
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("tokenizer", type=pathlib.Path)
    p.add_argument("text", type=pathlib.Path)
    a = p.parse_args()
    peer = peer_of(a.tokenizer)
    text = a.text.read_text("utf8")
    lines = text.removesuffix("\n").split("\n")
    megabytes = len(text.encode()) / 1e6
    ours, places, one, batch = [], [], [], []
    for _ in range(a.rounds):
        found = {}
        for line in subprocess.run([a.bin / "tokenizer_bench", a.tokenizer, a.text], check=True, capture_output=True,
                                   text=True).stdout.splitlines():
            parts = line.split("|")
            if parts[0] == "row":
                kind, _, what = parts[2].partition(": ")
                found[what] = float(parts[3].split()[0])
            elif line.startswith("encode, by line"):
                count = int(line[line.index("(") + 1:].split()[0])
        ours.append(found["encode, by line"])
        places.append(found["encode, by line, with places"])
        one.append(megabytes / best(lambda: [peer.encode(line) for line in lines]))
        batch.append(megabytes / best(lambda: peer.encode_batch(lines)))
    theirs = sum(len(e.ids) for e in peer.encode_batch(lines))
    print(f"{a.tokenizer.name}, {a.text.name}: {count} ids of ours, {theirs} of theirs")
    mine, single, batched = statistics.median(ours), statistics.median(one), statistics.median(batch)
    for what, figure in (("encode, by line", mine), ("encode, by line, with places", statistics.median(places))):
        for name, other in (("tokenizers", single), ("tokenizers, batch", batched)):
            print(f"row|tokenizer|{kind}: {what}|{figure:.1f} MB/s|-|-|{name}|{other:.2f} MB/s|{figure / other:.2f}")


if __name__ == "__main__":
    main()
