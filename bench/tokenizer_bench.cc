// Tokenizer speed on one thread, in MB of text a second of CPU time (other processes do not change it much).
//   tokenizer_bench TOKENIZER TEXT [VOCAB_SIZE]
// TOKENIZER is a folder or file for load_tokenizer(); with VOCAB_SIZE a byte-level BPE is trained on the text
// as well.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "bench/row.h"
#include "data/bpe_trainer.h"
#include "data/tokenizer_files.h"

namespace {

double cpu_seconds() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// The best of five runs.
template <class Work>
double seconds(Work&& work) {
  double best = 1e30;
  for (int run = 0; run < 5; ++run) {
    const double begin = cpu_seconds();
    work();
    best = std::min(best, cpu_seconds() - begin);
  }
  return best;
}

void measure(int argc, char** argv) {
  using namespace trireme;
  const std::string text = read_text_file(argv[2], size_t{1} << 30);
  const double megabytes = static_cast<double>(text.size()) / 1e6;
  const double begin = cpu_seconds();
  const Tokenizer tokenizer = load_tokenizer(argv[1]);
  std::printf("load            %8.3f s\n", cpu_seconds() - begin);

  std::vector<int32_t> ids;
  const double whole = seconds([&] { ids = tokenizer.encode(text); });
  std::printf("encode, whole   %8.1f MB/s  (%zu ids)\n", megabytes / whole, ids.size());
  const std::string kind(tokenizer.model().to_json().at("type").as_string());
  const auto row = [&](const char* what, double s) {
    print_row({.bench = "tokenizer", .what = kind + ": " + what, .ours_s = s, .ours = trireme::text(std::round(10 * megabytes / s) / 10, " MB/s")});
  };
  row("encode, whole", whole);
  size_t line_ids = 0;
  // encode(line) gives the number of ids.
  const auto by_line = [&](auto&& encode) {
    return seconds([&] {
      line_ids = 0;
      for (std::string_view rest = text; !rest.empty();) {
        const size_t end = std::min(rest.find('\n'), rest.size());
        line_ids += encode(rest.substr(0, end));
        rest.remove_prefix(std::min(end + 1, rest.size()));
      }
    });
  };
  const double lines = by_line([&](std::string_view line) { return tokenizer.encode(line).size(); });
  std::printf("encode, by line %8.1f MB/s  (%zu ids)\n", megabytes / lines, line_ids);
  row("encode, by line", lines);
  const double places = by_line([&](std::string_view line) { return tokenizer.encode_with_offsets(line).size(); });
  std::printf("with places     %8.1f MB/s  (%zu ids)\n", megabytes / places, line_ids);
  row("encode, by line, with places", places);
  size_t decoded = 0;
  const double decode = seconds([&] { decoded = tokenizer.decode(ids).size(); });
  std::printf("decode          %8.1f MB/s  (%zu bytes)\n", megabytes / decode, decoded);
  row("decode", decode);

  if (argc < 4) return;
  BpeTraining options;
  options.vocab_size = std::atoi(argv[3]);
  const std::string_view view = text;
  const double trained = cpu_seconds();
  const int32_t size = train_bpe(std::span(&view, 1), options).vocab_size();
  std::printf("train to %6d %8.3f s\n", size, cpu_seconds() - trained);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc > 4) {
    std::fprintf(stderr, "usage: tokenizer_bench TOKENIZER TEXT [VOCAB_SIZE]\n");
    return 2;
  }
  try {
    measure(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
