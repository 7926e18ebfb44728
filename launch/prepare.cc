#include "data/prepare.h"

#include <unistd.h>

#include <cstdio>

#include "base/files.h"
#include "data/tokenizer_files.h"
#include "launch/arguments.h"
#include "launch/command.h"

namespace trireme {
namespace {

constexpr char kHelp[] =
    "usage: trireme prepare --tokenizer DIR --out FILE [OPTIONS] TEXT...\n\n"
    "Turns text files (or JSONL, by the ending .jsonl) into one indexed token file for data.train.\n\n"
    "  --split file|blank-lines|lines|jsonl   what is one document (file; jsonl for files of that ending)\n"
    "  --jsonl-key KEY                        where the text stands (text)\n"
    "  --validation-out FILE --validation-fraction F   hold back that part of the documents, evenly spread\n\n"
    "example: trireme prepare --tokenizer tokenizer/ --out train.tokens --validation-out validation.tokens \\\n"
    "           --validation-fraction 0.05 --split blank-lines corpus.txt\n";

// Of what turns text into ids: the tokenizer's own file.
uint64_t tokenizer_hash(const std::filesystem::path& path) {
  for (const auto& f :
       {path, path / "tokenizer.json", path / "tokenizer.model", path / "merges.txt", path / "vocab.bpe"})
    if (std::filesystem::is_regular_file(f)) return hash_file(f).low;
  return 0;
}

}  // namespace

int run_prepare(const Words& words) {
  const Arguments args(
      words, {"tokenizer", "out", "split", "jsonl-key", "validation-out", "validation-fraction"}, {"help"});
  if (args.has("help")) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  const std::string path = args.required("tokenizer");
  PrepareOptions options;
  options.out = args.required("out");
  check<ConfigError>(!args.rest().empty(), "prepare: no text file given; see trireme prepare --help");
  const bool jsonl = std::filesystem::path(args.rest()[0]).extension() == ".jsonl";
  const std::string split = args.value("split").value_or(jsonl ? "jsonl" : "file");
  if (split == "blank-lines") options.split = DocumentSplit::kBlankLines;
  else if (split == "lines") options.split = DocumentSplit::kLines;
  else if (split == "jsonl") options.split = DocumentSplit::kJsonl;
  else check<ConfigError>(split == "file", "--split=", split, "; use file, blank-lines, lines or jsonl");
  options.jsonl_key = args.value("jsonl-key").value_or("text");
  options.validation_out = args.value("validation-out").value_or("");
  options.validation_fraction =
      args.number("validation-fraction", options.validation_out.empty() ? 0 : 0.05, 0, 0.5);
  check<ConfigError>(!options.validation_out.empty() || options.validation_fraction == 0,
                     "--validation-fraction wants --validation-out FILE");
  options.tokenizer_hash = tokenizer_hash(path);
  if (isatty(2))
    options.progress = [](uint64_t done, uint64_t all) {
      std::fprintf(stderr, "\rpreparing: %3.0f %%",
                   all ? 100.0 * static_cast<double>(done) / static_cast<double>(all) : 100.0);
    };
  const std::vector<std::filesystem::path> files(args.rest().begin(), args.rest().end());
  const Prepared p = prepare(load_tokenizer(path), files, options);
  if (isatty(2)) std::fputc('\n', stderr);
  std::printf("%s: %ld tokens in %ld documents\n", options.out.c_str(), static_cast<long>(p.tokens),
              static_cast<long>(p.documents));
  if (!options.validation_out.empty())
    std::printf("%s: %ld tokens in %ld documents\n", options.validation_out.c_str(),
                static_cast<long>(p.validation_tokens), static_cast<long>(p.validation_documents));
  return 0;
}

}  // namespace trireme
