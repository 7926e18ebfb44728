#include "model/convert.h"

#include <unistd.h>

#include <cstdio>

#include "launch/arguments.h"
#include "launch/command.h"
#include "trainer/checkpoint.h"

namespace trireme {
namespace {

constexpr char kHelp[] =
    "usage: trireme convert FROM TO [OPTIONS]\n\n"
    "Makes the model folder TO, as `transformers` and trireme load it, of FROM: a folder with model.safetensors or\n"
    "pytorch_model.bin, whole or in shards with an index; a checkpoint of a run; or a single .safetensors, .bin, .pt or\n"
    ".pth file beside its config.json. Pickled files are read as data and can run nothing. config.json, tokenizer files\n"
    "and the like are copied, subfolders are not. TO appears whole, at the end, or not at all.\n\n"
    "  --dtype f32|bf16|f16   of the floating tensors (each stays as it is)\n"
    "  --names new|old        LayerNorm.weight and .bias, or LayerNorm.gamma and .beta of BERT's first years (new)\n"
    "  --part NAME            of a .pt file like {\"model\": {...}, \"optimizer\": ...}: the dictionary that is wanted\n"
    "  --shard-mb N           a larger model is cut into files of at most so many million bytes (5000)\n\n"
    "examples: trireme convert bert-base-uncased/ bert/\n"
    "          trireme convert runs/mine/latest mine-bf16/ --dtype bf16\n"
    "          trireme convert old/model.pt new/ --part model\n";

std::optional<DType> dtype_of(const Arguments& args) {
  const auto given = args.value("dtype");
  if (!given) return std::nullopt;
  for (const DType t : {DType::kF32, DType::kBF16, DType::kF16})
    if (*given == name_of(t)) return t;
  throw ConfigError(text("--dtype=", *given, ": use f32, bf16 or f16"));
}

void check_source(const std::filesystem::path& from) {
  std::error_code ignored;
  const auto has = [&](const char* name) { return std::filesystem::exists(from / name, ignored); };
  check<FileError>(has("config.json") || !has("latest"), from.string(), ": is a run's folder; convert ",
                   (from / "latest").string(), " or another of its checkpoints");
  if (!has("manifest.json") || !has("state.json")) return;
  const std::string problem = verify_checkpoint(from);
  check<FileError>(problem.empty(), problem);
}

}  // namespace

int run_convert(const Words& words) {
  const Arguments args(words, {"dtype", "names", "part", "shard-mb"}, {"help"});
  if (args.has("help")) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  check<ConfigError>(args.rest().size() == 2, "convert: say FROM and TO; see trireme convert --help");
  const std::filesystem::path from = args.rest()[0], to = args.rest()[1];
  ConvertOptions options;
  options.dtype = dtype_of(args);
  const std::string names = args.value("names").value_or("new");
  check<ConfigError>(names == "new" || names == "old", "--names=", names, ": use new or old");
  options.old_names = names == "old";
  options.part = args.value("part").value_or("");
  options.max_shard_bytes = 1'000'000 * static_cast<uint64_t>(args.integer("shard-mb", 5000, 1, 1'000'000'000));
  if (isatty(2))
    options.progress = [shown = -1](uint64_t done, uint64_t all) mutable {
      const int percent = static_cast<int>(100.0 * static_cast<double>(done) / static_cast<double>(all));
      if (percent != shown) std::fprintf(stderr, "\rconverting: %3d %%%s", shown = percent, done == all ? "\n" : "");
    };
  check_source(from);
  const Converted c = convert_model(from, to, options);
  const auto bytes = static_cast<double>(c.num_bytes);
  std::printf("%s: %zu tensors, %.1f %s", to.c_str(), c.tensors, bytes * (bytes < 1e6 ? 1e-3 : 1e-6),
              bytes < 1e6 ? "kB" : "MB");
  if (c.renamed > 0) std::printf(", %zu of them renamed", c.renamed);
  std::printf("; copied:");
  for (const std::string& name : c.copied) std::printf(" %s", name.c_str());
  std::printf("%s\n", c.copied.empty() ? " nothing but config.json" : " and config.json");
  return 0;
}

}  // namespace trireme
