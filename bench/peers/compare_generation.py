#!/usr/bin/env python3
"""Generation beside llama.cpp: the same shape, random weights, threads and prompts, the two taking turns.

  python3 -m venv peer && peer/bin/pip install numpy gguf
  CMAKE_ARGS="-DGGML_NATIVE=ON" peer/bin/pip install --no-binary llama-cpp-python llama-cpp-python
  peer/bin/python bench/peers/compare_generation.py [--bin build/bin] [--dtype f32|bf16] [--rounds 5] [--threads 2]

Writes the Llama 134M shape once as safetensors and as GGUF to --folder. Each round runs bench/generate_bench.cc
and llama.cpp (its defaults: mapped file, f16 cache), each in a process of its own, warm: prefill of 512 tokens,
decoding of one sequence, prefill and decoding of 32 together, and the time to the first token (the whole of
`trireme generate`, from warm cache, against loading and one decode alone: the peer's imports are left out).
Prints medians, how many times as fast this project is, and the share that it reaches of the nearest of generate_bench's
floors, which its rounds measure too.
"""
import argparse
import json
import pathlib
import re
import statistics
import subprocess
import sys
import time

import numpy as np

V, D, F, L, H, CONTEXT = 32000, 768, 2048, 12, 12, 2048
PROMPT, TOKENS, BATCH, BATCH_PROMPT = 512, 32, 32, 32


def weights():
    """(Hugging Face name, GGUF name, shape), in the order of a file that `transformers` saves."""
    yield "lm_head.weight", "output.weight", (V, D)
    yield "model.embed_tokens.weight", "token_embd.weight", (V, D)
    for i in range(L):
        hf, gg = f"model.layers.{i}.", f"blk.{i}."
        yield hf + "input_layernorm.weight", gg + "attn_norm.weight", (D,)
        yield hf + "mlp.down_proj.weight", gg + "ffn_down.weight", (D, F)
        yield hf + "mlp.gate_proj.weight", gg + "ffn_gate.weight", (F, D)
        yield hf + "mlp.up_proj.weight", gg + "ffn_up.weight", (F, D)
        yield hf + "post_attention_layernorm.weight", gg + "ffn_norm.weight", (D,)
        attention = {"k_proj": "attn_k", "o_proj": "attn_output", "q_proj": "attn_q", "v_proj": "attn_v"}
        for name, other in attention.items():
            yield hf + f"self_attn.{name}.weight", gg + f"{other}.weight", (D, D)
    yield "model.norm.weight", "output_norm.weight", (D,)


def values(name, shape):
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    random = np.random.default_rng(sum(name.encode()) * 7919 + shape[0])
    return random.standard_normal(shape, np.float32) * np.float32(0.02)


def as_bf16(x):
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_safetensors(folder, dtype):
    folder.mkdir(parents=True, exist_ok=True)
    header, at, size = {}, 0, 4 if dtype == "f32" else 2
    for name, _, shape in weights():
        end = at + int(np.prod(shape)) * size
        header[name] = {"dtype": dtype.upper(), "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name, _, shape in weights():
            x = values(name, shape)
            out.write((x if dtype == "f32" else as_bf16(x)).tobytes())
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": V, "hidden_size": D,
        "intermediate_size": F, "num_hidden_layers": L, "num_attention_heads": H, "num_key_value_heads": H,
        "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2}))
    # The bytes alone, so that `trireme generate` has a tokenizer.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {b: chr(b) for b in printable}
    letters.update({b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in printable)})
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": {letters[b]: b for b in range(256)}, "merges": []}}))


def write_gguf(path, dtype):
    import gguf
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_vocab_size(V)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(D)
    writer.add_block_count(L)
    writer.add_feed_forward_length(F)
    writer.add_head_count(H)
    writer.add_head_count_kv(H)
    writer.add_rope_dimension_count(D // H)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("no_vocab")
    for name, other, shape in weights():
        x = values(name, shape)
        if dtype == "f32" or len(shape) == 1:  # llama.cpp wants norms in f32
            writer.add_tensor(other, x)
        else:
            writer.add_tensor(other, as_bf16(x), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def peer_round(gguf_path, threads, start_only):
    """In a process of its own: prints the same measures as JSON."""
    began = time.perf_counter()
    import ctypes
    import llama_cpp as c
    imported = time.perf_counter()
    quiet = c.llama_log_callback(lambda *_: None)
    c.llama_log_set(quiet, ctypes.c_void_p(0))
    c.llama_backend_init()
    model = c.llama_model_load_from_file(str(gguf_path).encode(), c.llama_model_default_params())

    def context(sequences, rows):
        p = c.llama_context_default_params()
        p.n_ctx = sequences * (PROMPT if sequences == 1 else BATCH_PROMPT) + sequences * (TOKENS + 16)
        p.n_batch = p.n_ubatch = rows
        p.n_seq_max = sequences
        p.n_threads = p.n_threads_batch = threads
        return c.llama_init_from_model(model, p)

    def decode(ctx, batch, rows):
        """rows: (token, position, sequence, wants logits). Returns when it began, the batch filled."""
        for i, (token, position, sequence, wants) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
            batch.seq_id[i][0], batch.logits[i] = sequence, wants
        batch.n_tokens = len(rows)
        begin = time.perf_counter()
        if c.llama_decode(ctx, batch) != 0:
            sys.exit("llama_decode failed")
        return begin

    def likeliest(ctx, i):
        return int(np.argmax(np.ctypeslib.as_array(c.llama_get_logits_ith(ctx, i), (V,))))

    if start_only:
        ctx = context(1, 64)
        batch = c.llama_batch_init(64, 0, 1)
        decode(ctx, batch, [(104, 0, 0, True)])
        likeliest(ctx, 0)
        print(json.dumps({"start": time.perf_counter() - imported, "with_import": time.perf_counter() - began}))
        return

    found = {}
    for sequences, prompt in ((1, PROMPT), (BATCH, BATCH_PROMPT)):
        rows = sequences * prompt
        ctx = context(sequences, rows)
        batch = c.llama_batch_init(rows, 0, sequences)
        for warm in (True, False):
            c.llama_memory_clear(c.llama_get_memory(ctx), True)
            start = decode(ctx, batch, [((i * 7919 + s * 104729) % V, i, s, i == prompt - 1)
                                        for s in range(sequences) for i in range(prompt)])
            ids = [likeliest(ctx, s * prompt + prompt - 1) for s in range(sequences)]
            first = time.perf_counter()
            for step in range(1, TOKENS):
                decode(ctx, batch, [(ids[s], prompt + step - 1, s, True) for s in range(sequences)])
                ids = [likeliest(ctx, s) for s in range(sequences)]
            end = time.perf_counter()
        found[f"prefill {sequences}"] = rows / (first - start)
        found[f"decode {sequences}"] = sequences * (TOKENS - 1) / (end - first)
        c.llama_batch_free(batch)
        c.llama_free(ctx)
    print(json.dumps(found))


def our_round(bin_folder, folder, dtype, threads):
    """Speeds, shares of the floor by the same names, and the names in full."""
    out = subprocess.run([bin_folder / "generate_bench", f"model={folder}", f"dtype={dtype}", "rounds=1",
                          f"threads={threads}", f"prompt={PROMPT}", f"tokens={TOKENS}", f"batch={BATCH}",
                          f"batch_prompt={BATCH_PROMPT}"], check=True, capture_output=True, text=True).stdout
    found, shares, labels = {}, {}, {}
    for kind, batch, rest, rate, floors in re.findall(r"^(prefill|decode) (\d+)(.*?): ([\d.]+) tokens/s(.*)$", out, re.M):
        key = f"{kind} {batch}"
        found[key], labels[key] = float(rate), key + rest
        shares[key] = max(float(share) for share in re.findall(r"([\d.]+) of ", floors))
    begin = time.perf_counter()
    subprocess.run([bin_folder / "trireme", "generate", "--model", folder, "--dtype", dtype, "--prompt", "h",
                    "--max-tokens", "1", "--temperature", "0", "--threads", str(threads), "--ids"], check=True,
                   capture_output=True)
    found["start"] = time.perf_counter() - begin
    return found, shares, labels


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bin", type=pathlib.Path, default=pathlib.Path("build/bin"))
    p.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("/tmp/trireme-llama-134m"))
    p.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--peer-round", choices=["speed", "start"], help=argparse.SUPPRESS)
    a = p.parse_args()
    gguf_path, ours_folder = a.folder / f"{a.dtype}.gguf", a.folder / a.dtype
    if a.peer_round:
        return peer_round(gguf_path, a.threads, a.peer_round == "start")
    if not (ours_folder / "tokenizer.json").exists():
        write_safetensors(ours_folder, a.dtype)
    if not gguf_path.exists():
        write_gguf(gguf_path.with_suffix(".part"), a.dtype)
        gguf_path.with_suffix(".part").rename(gguf_path)

    ours, peer = [], []
    for _ in range(a.rounds):
        ours.append(our_round(a.bin, ours_folder, a.dtype, a.threads))
        found = {}
        for kind in ("speed", "start"):
            out = subprocess.run([sys.executable, __file__, "--folder", a.folder, "--dtype", a.dtype, "--threads",
                                  str(a.threads), "--peer-round", kind], check=True, capture_output=True, text=True)
            found.update(json.loads(out.stdout))
        peer.append(found)
    print(f"{a.dtype}, {a.threads} threads, medians of {a.rounds} rounds")
    for key in ours[0][0]:
        mine, other = statistics.median(r[0][key] for r in ours), statistics.median(r[key] for r in peer)
        if key == "start":
            print(f"start to first token: {mine:.3f} s, llama.cpp {other:.3f} s, {other / mine:.2f} times as fast")
        else:
            share = statistics.median(r[1][key] for r in ours)
            print(f"{ours[0][2][key]}: {mine:.1f} tokens/s, llama.cpp {other:.1f}, {mine / other:.2f} times as fast, "
                  f"{share:.2f} of the floor")


if __name__ == "__main__":
    main()
