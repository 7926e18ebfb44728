#include "data/sample_source.h"

#include <algorithm>

namespace trireme {
namespace {

std::vector<double> weights_of(const std::vector<SampleSource::File>& files) {
  std::vector<double> weights;
  for (const auto& f : files) weights.push_back(f.weight);
  return weights;
}

}  // namespace

SampleSource::SampleSource(const std::vector<File>& files, const SampleOptions& options)
    : options_(options), blend_(weights_of(files), options.seed) {
  check<ConfigError>(options.sequence_length >= 1, "data.sequence_length=", options.sequence_length, "; use at least 1");
  for (const File& f : files) {
    files_.push_back(TokenFile::open(f.path));
    const TokenFile& file = files_.back();
    check<ConfigError>(samples_in(file) >= 1, f.path.string(), ": has ", file.num_tokens(),
                       " tokens, fewer than one sample of data.sequence_length=", options.sequence_length, " and its label");
    check<ConfigError>(file.vocabulary() == files_[0].vocabulary(), f.path.string(), ": has a vocabulary of ",
                       file.vocabulary(), ", ", files_[0].path().string(), " one of ", files_[0].vocabulary(),
                       "; prepare both with one tokenizer");
    check<ConfigError>(!file.tokenizer_hash() || !files_[0].tokenizer_hash() ||
                           file.tokenizer_hash() == files_[0].tokenizer_hash(),
                       f.path.string(), " and ", files_[0].path().string(),
                       " were made by different tokenizers; prepare both with one");
  }
}

int64_t SampleSource::samples_per_epoch() const {
  int64_t n = 0;
  for (const TokenFile& f : files_) n += samples_in(f);
  return n;
}

int64_t SampleSource::num_tokens() const {
  int64_t n = 0;
  for (const TokenFile& f : files_) n += f.num_tokens();
  return n;
}

Sample SampleSource::sample(int64_t number) const {
  const Draw draw = blend_(number);
  const TokenFile& file = files_[draw.source];
  const int64_t size = samples_in(file), length = options_.sequence_length;
  const int64_t epoch = draw.number / size;
  int64_t index = draw.number % size;
  if (options_.shuffle) {
    const uint64_t key = options_.seed ^ (static_cast<uint64_t>(epoch) * 0xd1342543de82ef95ull) ^
                         (static_cast<uint64_t>(draw.source) << 48);
    index = static_cast<int64_t>(Permutation(static_cast<uint64_t>(size), key)(static_cast<uint64_t>(index)));
  }
  const int64_t begin = index * length;
  Sample s;
  s.number = number;
  std::vector<int32_t> window(length + 1);
  file.copy_tokens(begin, window);
  s.ids.assign(window.begin(), window.end() - 1);
  s.labels.assign(window.begin() + 1, window.end());
  s.positions.resize(length);
  if (options_.packing == Packing::kStream) {
    for (int64_t i = 0; i < length; ++i) s.positions[i] = static_cast<int32_t>(i);
    s.segments.push_back(static_cast<int32_t>(length));
    return s;
  }
  for (int64_t i = 0; i < length;) {
    const int64_t end = std::min(length, file.document_end(begin + i) - begin);
    for (int64_t j = i; j < end; ++j) s.positions[j] = static_cast<int32_t>(options_.reset_positions ? j - i : j);
    s.segments.push_back(static_cast<int32_t>(end - i));
    if (begin + end == file.document_end(begin + i)) s.labels[end - 1] = -100;
    i = end;
  }
  return s;
}

}  // namespace trireme
