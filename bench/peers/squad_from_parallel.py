#!/usr/bin/env python3
"""SQuAD's JSON out of parallel files of tokenised text: PREFIX.context, PREFIX.question, PREFIX.answer and PREFIX.span, whose lines
hold the number of an answer's first and last token.   squad_from_parallel.py PREFIX [FIRST:LAST] > out.json"""
import json
import sys

lines = [open(f"{sys.argv[1]}.{end}", encoding="utf-8").read().splitlines() for end in ("context", "question", "span")]
first, _, last = (sys.argv[2] if len(sys.argv) > 2 else ":").partition(":")
paragraphs = []
for i, (context, question, span) in list(enumerate(zip(*lines)))[int(first or 0) : int(last or len(lines[0]))]:
    words = context.split()
    begin, end = map(int, span.split())
    at = len(" ".join(words[:begin])) + (begin > 0)
    text = " ".join(words[begin : end + 1])
    context = " ".join(words)
    assert context[at : at + len(text)] == text
    paragraphs.append({"context": context, "qas": [{"id": str(i), "question": question, "answers": [{"text": text, "answer_start": at}]}]})
json.dump({"version": "1.1", "data": [{"title": "", "paragraphs": paragraphs}]}, sys.stdout)
