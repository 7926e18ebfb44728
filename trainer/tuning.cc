#include "trainer/tuning.h"

#include <algorithm>
#include <optional>

#include "base/files.h"
#include "model/cost.h"
#include "parallel/vocabulary.h"
#include "trainer/agreed.h"

namespace trireme {
namespace {

constexpr std::string_view kHeading = "trireme tuning 1", kProducts = "[products]",
                           kCollectives = "[collectives]";
constexpr size_t kMaxBytes = 4 << 20;

std::string_view trimmed(std::string_view line) {
  const size_t end = line.find_last_not_of(" \t\r");
  return line.substr(0, end == line.npos ? 0 : end + 1);
}

}  // namespace

std::string Tuning::to_text() const {
  std::string out = text(kHeading, "\n", kProducts, "\n", products.to_text());
  if (!collectives.empty()) out += text(kCollectives, "\n", collectives.to_text());
  return out;
}

Tuning Tuning::parse(std::string_view contents, const std::string& where) {
  Tuning tuning;
  std::vector<std::string_view> sections;
  bool heading = false;
  int line_number = 0;
  while (!contents.empty()) {
    const size_t end = std::min(contents.find('\n'), contents.size());
    const std::string_view line = trimmed(contents.substr(0, end));
    contents.remove_prefix(std::min(end + 1, contents.size()));
    ++line_number;
    if (line.empty() || line.starts_with('#')) continue;
    if (!heading) {
      check<FileError>(line == kHeading, where, ": line ", line_number, ": want \"", kHeading, "\"");
      heading = true;
      continue;
    }
    check<FileError>(line == kProducts || line == kCollectives, where, ": line ", line_number, ": \"", line,
                     "\" is no section; want ", kProducts, " or ", kCollectives);
    check<FileError>(std::find(sections.begin(), sections.end(), line) == sections.end(), where, ": line ", line_number,
                     ": ", line, " was given before");
    sections.push_back(line);
    // To the next section.
    size_t section = 0;
    while (section < contents.size() && contents[section] != '[') {
      const size_t next = contents.find('\n', section);
      section = next == contents.npos ? contents.size() : next + 1;
    }
    const std::string_view body = contents.substr(0, section);
    const std::string place = text(where, ", ", line);
    if (line == kProducts)
      tuning.products = GemmTable::parse(body, place);
    else
      tuning.collectives = CollectiveTable::parse(body, place);
    line_number += static_cast<int>(std::count(body.begin(), body.end(), '\n'));
    contents.remove_prefix(section);
  }
  check<FileError>(heading, where, ": the file ends before ", kHeading);
  check<FileError>(std::find(sections.begin(), sections.end(), kProducts) != sections.end(), where,
                   ": the file ends before ", kProducts);
  return tuning;
}

Tuning Tuning::load(const std::filesystem::path& path) { return parse(read_text_file(path, kMaxBytes), path.string()); }

ChosenTuning choose_tuning(Communicator& world, const RunSection& run, const std::filesystem::path& checkpoint) {
  ChosenTuning chosen;
  agreed(world, [&] {
    if (world.rank() != 0) return;
    std::optional<Tuning> saved, given;
    if (const auto path = checkpoint / kTuningFile; !checkpoint.empty() && std::filesystem::exists(path))
      saved = Tuning::load(path);
    if (!run.tuning.empty()) given = Tuning::load(run.tuning);
    if (!checkpoint.empty() && given && given->products != saved.value_or(Tuning()).products)
      chosen.warning = text("run.tuning=", run.tuning, " is not what ", checkpoint.string(), " was trained with: from here on "
                            "results differ in their last bits from those of a run that was not broken off");
    if (!given) given = saved;
    if (!given) return;
    chosen.text = given->to_text();
    write_file_atomically(std::filesystem::path(run.dir) / kTuningFile, chosen.text);
  });
  chosen.text = world.broadcast_string(chosen.text, 0);
  agreed(world, [&] {
    if (!chosen.text.empty()) chosen.tuning = Tuning::parse(chosen.text, kTuningFile);
    chosen.tuning.use_products(run.matmul_precision);
  });
  return chosen;
}

std::vector<GemmShape> training_products(const ModelConfig& m, int64_t tokens, int64_t n, DType dtype) {
  const int64_t d = m.hidden_size, f = m.intermediate_size / n, q = m.num_attention_heads * m.head_dim / n,
                kv = m.num_key_value_heads * m.head_dim / n;
  const struct {
    int64_t tokens, in, out;
  } layers[] = {{tokens, d, q + 2 * kv}, {tokens, q, d}, {tokens, d, has_gated_mlp(m) ? 2 * f : f}, {tokens, f, d},
                {std::min(tokens, kLossChunk), d, (m.vocab_size + n - 1) / n}};
  std::vector<GemmShape> shapes;
  const auto add = [&](const GemmShape& s) {
    const std::string name = text(s);
    for (const GemmShape& known : shapes)
      if (text(known) == name) return;
    shapes.push_back(s);
  };
  for (const auto& l : layers) {
    add({false, true, l.tokens, l.out, l.in, dtype, dtype});
    add({false, false, l.tokens, l.in, l.out, dtype, dtype});
    add({true, false, l.out, l.in, l.tokens, dtype, DType::kF32});
  }
  return shapes;
}

}  // namespace trireme
