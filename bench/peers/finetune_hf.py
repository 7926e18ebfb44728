#!/usr/bin/env python3
"""Finetunes the model of a folder with the Hugging Face Trainer on files as `trireme train` reads them, and prints a JSON line
of scores for each seed: the other side of bench/peers/compare_finetunes.py.

  python bench/peers/finetune_hf.py TASK MODEL TRAIN DEV --epochs 1 --batch 32 --rate 5e-5 --length 128 --seeds 1,2,3

TASK: classify (TSV with a header: sentence, label), ner (CoNLL), qa (SQuAD JSON). Needs torch, transformers, accelerate, datasets.
Settings beside those given: linear decay with a tenth of warmup, AdamW with weight decay 0.01, clipping at 1, f32.
"""
import argparse
import collections
import json
import re
import string
import sys
import time

import numpy as np
import torch
import transformers


def read_tsv(path):
    lines = open(path, encoding="utf-8").read().splitlines()
    names = lines[0].split("\t")
    return [dict(zip(names, line.split("\t"))) for line in lines[1:]]


def read_conll(path):
    sentences, words, tags = [], [], []
    for line in [*open(path, encoding="utf-8").read().splitlines(), ""]:
        if not line.strip():
            if words:
                sentences.append((words, tags))
            words, tags = [], []
            continue
        fields = line.split()
        words.append(fields[0])
        tags.append(fields[-1])
    return sentences


def read_squad(path):
    for article in json.load(open(path, encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for q in paragraph["qas"]:
                yield {"id": q["id"], "question": q["question"], "context": paragraph["context"], "answers": q["answers"]}


def normalized(text):
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def answer_f1(predicted, gold):
    p, g = normalized(predicted).split(), normalized(gold).split()
    same = sum((collections.Counter(p) & collections.Counter(g)).values())
    return 0.0 if same == 0 else 2 * same / (len(p) + len(g))


def entities(tags):
    """(type, begin, end) by the rules of conlleval."""
    found, begin, kind = [], None, None
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, this = tag.partition("-")
        starts = prefix in "BS" or (prefix in "IE" and (kind is None or this != kind))
        if kind is not None and (prefix == "O" or starts):
            found.append((kind, begin, i))
            kind = None
        if prefix != "O" and kind is None:
            begin, kind = i, this
        if prefix in "ES" and kind is not None:
            found.append((kind, begin, i + 1))
            kind = None
    return set(found)


class Classify:
    def __init__(self, a, tokenizer):
        self.train, self.dev = read_tsv(a.train), read_tsv(a.dev)
        self.labels = sorted({row["label"] for row in self.train})
        encode = lambda rows: [{**tokenizer(r["sentence"], truncation=True, max_length=a.length),
                                "labels": self.labels.index(r["label"])} for r in rows]
        self.train_set, self.dev_set = encode(self.train), encode(self.dev)
        self.collator = transformers.DataCollatorWithPadding(tokenizer)
        self.model = lambda: transformers.AutoModelForSequenceClassification.from_pretrained(a.model, num_labels=len(self.labels))

    def scores(self, logits):
        gold = np.array([row["labels"] for row in self.dev_set])
        return {"accuracy": float((logits.argmax(-1) == gold).mean())}


class Ner:
    def __init__(self, a, tokenizer):
        train, self.dev = read_conll(a.train), read_conll(a.dev)
        self.tags = ["O", *sorted({t for _, tags in train for t in tags} - {"O"})]
        self.train_set, self.dev_set = ([self.encode(tokenizer, *s, a.length) for s in sentences] for sentences in (train, self.dev))
        self.collator = transformers.DataCollatorForTokenClassification(tokenizer)
        self.model = lambda: transformers.AutoModelForTokenClassification.from_pretrained(a.model, num_labels=len(self.tags))

    def encode(self, tokenizer, words, tags, length):
        e = tokenizer(words, is_split_into_words=True, truncation=True, max_length=length)
        labels, before = [], None
        for word in e.word_ids():
            labels.append(-100 if word is None or word == before else self.tags.index(tags[word]))
            before = word
        return {**e, "labels": labels}

    def scores(self, logits):
        right = predicted = gold = 0
        for row, encoded, (words, tags) in zip(logits, self.dev_set, self.dev):
            guess = [self.tags[c] for c, label in zip(row.argmax(-1), encoded["labels"]) if label != -100]
            guess += ["O"] * (len(tags) - len(guess))
            p, g = entities(guess), entities(tags)
            right, predicted, gold = right + len(p & g), predicted + len(p), gold + len(g)
        return {"f1": 2 * right / max(1, predicted + gold)}


class Qa:
    STRIDE, BEST, LONGEST = 128, 20, 30

    def __init__(self, a, tokenizer):
        self.questions = list(read_squad(a.dev))
        self.train_set = [w for q in read_squad(a.train) for w in self.windows(tokenizer, q, a.length, True)]
        self.dev_windows = [w for q in self.questions for w in self.windows(tokenizer, q, a.length, False)]
        self.dev_set = [{k: v for k, v in w.items() if k not in ("offsets", "id")} for w in self.dev_windows]
        self.collator = transformers.DataCollatorWithPadding(tokenizer)
        self.model = lambda: transformers.AutoModelForQuestionAnswering.from_pretrained(a.model)

    def windows(self, tokenizer, q, length, labelled):
        e = tokenizer(q["question"], q["context"], truncation="only_second", max_length=length, stride=self.STRIDE,
                      return_overflowing_tokens=True, return_offsets_mapping=True)
        for i in range(len(e["input_ids"])):
            sequence, offsets = e.sequence_ids(i), e["offset_mapping"][i]
            w = {k: e[k][i] for k in ("input_ids", "token_type_ids", "attention_mask") if k in e}
            begin, end = 0, 0
            if q["answers"]:
                at = q["answers"][0]["answer_start"]
                stop = at + len(q["answers"][0]["text"])
                inside = [t for t, s in enumerate(sequence) if s == 1]
                if offsets[inside[0]][0] <= at and offsets[inside[-1]][1] >= stop:
                    begin = max(t for t in inside if offsets[t][0] <= at)
                    end = min(t for t in inside if offsets[t][1] >= stop)
            w.update(start_positions=begin, end_positions=end)
            if not labelled:
                w.update(id=q["id"], offsets=[o if s == 1 else None for o, s in zip(offsets, sequence)])
            yield w

    def scores(self, logits):
        best = {q["id"]: (-1e30, "") for q in self.questions}
        context = {q["id"]: q["context"] for q in self.questions}
        for begin_logits, end_logits, w in zip(*logits, self.dev_windows):
            n = len(w["input_ids"])
            for b in np.argsort(-begin_logits[:n], kind="stable")[: self.BEST]:
                for e in np.argsort(-end_logits[:n], kind="stable")[: self.BEST]:
                    if w["offsets"][b] is None or w["offsets"][e] is None or e < b or e - b + 1 > self.LONGEST:
                        continue
                    score = begin_logits[b] + end_logits[e]
                    if score > best[w["id"]][0]:
                        best[w["id"]] = (score, context[w["id"]][w["offsets"][b][0] : w["offsets"][e][1]])
        exact = f1 = 0.0
        for q in self.questions:
            golds = [a["text"] for a in q["answers"]]
            exact += max(float(normalized(best[q["id"]][1]) == normalized(g)) for g in golds)
            f1 += max(answer_f1(best[q["id"]][1], g) for g in golds)
        return {"f1": f1 / len(self.questions), "exact_match": exact / len(self.questions)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["classify", "ner", "qa"])
    for name in ("model", "train", "dev"):
        parser.add_argument(name)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-steps", type=int, default=-1, help="for a timing alone")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    transformers.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(a.model)
    task = {"classify": Classify, "ner": Ner, "qa": Qa}[a.task](a, tokenizer)
    steps = -(-len(task.train_set) // a.batch) * a.epochs
    for seed in map(int, a.seeds.split(",")):
        transformers.set_seed(seed)
        arguments = transformers.TrainingArguments(
            output_dir="/tmp/finetune_hf", use_cpu=True, seed=seed, learning_rate=a.rate, num_train_epochs=a.epochs,
            max_steps=a.max_steps, per_device_train_batch_size=a.batch, per_device_eval_batch_size=64, weight_decay=0.01,
            warmup_steps=int(np.ceil(0.1 * (a.max_steps if a.max_steps > 0 else steps))), lr_scheduler_type="linear",
            save_strategy="no", eval_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True)
        trainer = transformers.Trainer(model=task.model(), args=arguments, train_dataset=task.train_set, data_collator=task.collator)
        begin = time.time()
        trained = trainer.train()
        seconds = time.time() - begin
        result = {"seed": seed, "train_s": seconds, "samples_per_s": trained.metrics["train_samples_per_second"]}
        if a.max_steps < 0:
            begin = time.time()
            predicted = []
            trainer.model.eval()
            with torch.no_grad():
                for first in range(0, len(task.dev_set), 64):
                    rows = [{k: v for k, v in r.items() if k not in ("labels", "start_positions", "end_positions")}
                            for r in task.dev_set[first : first + 64]]
                    out = trainer.model(**(task.collator(rows) if a.task != "ner" else pad(tokenizer, rows)))
                    if a.task == "qa":
                        predicted += list(zip(out.start_logits.numpy(), out.end_logits.numpy()))
                    else:
                        predicted += list(out.logits.numpy())
            logits = ([p[0] for p in predicted], [p[1] for p in predicted]) if a.task == "qa" else predicted
            logits = np.stack(logits) if a.task == "classify" else logits
            result.update(task.scores(logits), eval_s=time.time() - begin)
        print(json.dumps(result), flush=True)


def pad(tokenizer, rows):
    return tokenizer.pad(rows, return_tensors="pt")


if __name__ == "__main__":
    sys.exit(main())
