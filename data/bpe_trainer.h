// Training of byte-level byte-pair encodings (Sennrich et al. 2016, arXiv:1508.07909; over bytes as in
// GPT-2).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"

namespace trireme {

struct BpeTraining {
  int32_t vocab_size = 32000;  // special tokens and the 256 bytes included; at least 256 + special tokens
  std::vector<std::string> special_tokens = {"<|endoftext|>"};  // ids 0, 1, ..., never merged
  int64_t min_frequency = 2;                                    // pairs that occur less often are not merged
  bool add_prefix_space = false;
  // As RoBERTa's: <s>, <pad>, </s>, <unk>, <mask> in place of special_tokens, <s> and </s> around texts and </s></s> between two.
  bool roberta = false;
  // Called now and then, and once at the end, with the vocabulary's size so far.
  std::function<void(int32_t done, int32_t vocab_size)> progress = nullptr;
};

// Counts the words into which GPT-2's pattern cuts the texts, and repeatedly merges the pair that occurs most
// often; of those the one with the smallest ids. The same texts in any order give the same tokenizer. Texts
// need not be UTF-8. The vocabulary is smaller than asked for when no pair is left. Memory grows with the
// distinct words, not the texts. Roles: "<|endoftext|>" is bos and eos, or the names in roles_by_name().
// Throws ConfigError on a vocab_size too small, repeated or empty special tokens, min_frequency below 1.
class BpeTrainer {
 public:
  explicit BpeTrainer(BpeTraining options);
  ~BpeTrainer();
  // May be called any number of times.
  void add(std::string_view text);
  // Once only.
  Tokenizer train();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

Tokenizer train_bpe(std::span<const std::string_view> texts, BpeTraining options);

}  // namespace trireme
