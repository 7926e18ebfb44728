#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <iterator>
#include <sstream>

#include "base/files.h"
#include "data/bpe_trainer.h"
#include "data/tokenizer_files.h"
#include "launch/arguments.h"
#include "launch/command.h"

namespace trireme {
namespace {

constexpr char kHelp[] =
    "usage: trireme tokenize train --out DIR --vocab-size N [--min-frequency N] [--kind gpt2|roberta] FILE...\n"
    "       trireme tokenize encode --tokenizer DIR [TEXT ...]\n"
    "       trireme tokenize decode --tokenizer DIR [ID ...]\n\n"
    "train writes a byte-level BPE tokenizer as DIR/tokenizer.json, with the special tokens of GPT-2 (decoders) or of RoBERTa\n"
    "(encoders: <s> </s> <mask> ...). encode and decode take their words, or the standard\n"
    "input where none are given.\n\n"
    "example: trireme tokenize train --out tokenizer/ --vocab-size 4096 corpus.txt\n";

constexpr size_t kMostTextBytes = size_t{1} << 34;

int train_tokenizer(const Arguments& args, const Words& files) {
  BpeTraining options;
  options.vocab_size = static_cast<int32_t>(args.integer("vocab-size", 32000, 257, 1 << 24));
  options.min_frequency = args.integer("min-frequency", 2, 1, 1 << 30);
  const std::string kind = args.value("kind").value_or("gpt2");
  check<ConfigError>(kind == "gpt2" || kind == "roberta", "--kind=", kind, "; use gpt2 or roberta");
  options.roberta = kind == "roberta";
  const std::string out = args.required("out");
  check<ConfigError>(!files.empty(), "tokenize train: no text file given");
  if (isatty(2))
    options.progress = [](int32_t done, int32_t all) {
      std::fprintf(stderr, "\rmerging: %d of %d tokens", done, all);
    };
  BpeTrainer trainer(options);
  for (const std::string& f : files) trainer.add(read_text_file(f, kMostTextBytes));
  const Tokenizer tokenizer = trainer.train();
  if (isatty(2)) std::fputc('\n', stderr);
  save_tokenizer(tokenizer, out);
  std::printf("%s: %d tokens\n", (std::filesystem::path(out) / "tokenizer.json").c_str(),
              tokenizer.vocab_size());
  return 0;
}

std::string words_or_input(const Words& words) {
  if (words.empty()) return std::string(std::istreambuf_iterator<char>(std::cin), {});
  std::string joined;
  for (const std::string& w : words) joined += (joined.empty() ? "" : " ") + w;
  return joined;
}

int encode(const Tokenizer& tokenizer, const Words& words) {
  const std::vector<int32_t> ids = tokenizer.encode(words_or_input(words));
  for (size_t i = 0; i < ids.size(); ++i) std::cout << (i ? " " : "") << ids[i];
  std::cout << '\n';
  return 0;
}

int decode(const Tokenizer& tokenizer, const Words& words) {
  std::istringstream in(words_or_input(words));
  std::vector<int32_t> ids;
  for (std::string word; in >> word;) {
    size_t used = 0;
    long id = -1;
    try {
      id = std::stol(word, &used);
    } catch (const std::exception&) {
    }
    check<ConfigError>(used == word.size() && id >= 0 && id < tokenizer.vocab_size(), "tokenize decode: \"",
                       word, "\" is not an id below ", tokenizer.vocab_size());
    ids.push_back(static_cast<int32_t>(id));
  }
  std::cout << tokenizer.decode(ids) << '\n';
  return 0;
}

}  // namespace

int run_tokenize(const Words& words) {
  const Arguments args(words, {"out", "vocab-size", "min-frequency", "kind", "tokenizer"}, {"help"});
  if (args.has("help")) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  const std::string what = args.rest().empty() ? "" : args.rest()[0];
  const Words rest(args.rest().begin() + (args.rest().empty() ? 0 : 1), args.rest().end());
  if (what == "train") return train_tokenizer(args, rest);
  if (what == "encode") return encode(load_tokenizer(args.required("tokenizer")), rest);
  if (what == "decode") return decode(load_tokenizer(args.required("tokenizer")), rest);
  throw ConfigError("tokenize: say train, encode or decode; see trireme tokenize --help");
}

}  // namespace trireme
