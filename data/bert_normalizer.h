// The normalization of BERT's tokenizers (Devlin et al. 2018, arXiv:1810.04805), as published implementations
// have it.
#pragma once

#include <array>

#include "data/normalizer.h"

namespace trireme {

struct BertNormalization {
  bool clean_text = true;            // control characters vanish, white space becomes a space
  bool handle_chinese_chars = true;  // a space on either side of each ideograph
  bool strip_accents = true;         // canonical decomposition, then no nonspacing marks
  bool lowercase = true;
};

class BertNormalizer final : public Normalizer {
 public:
  explicit BertNormalizer(BertNormalization options);
  void normalize(AlignedText& text) const override;

 private:
  BertNormalization options_;
  std::array<char, 128> ascii_;  // what becomes of each; '\0' where it vanishes
};

}  // namespace trireme
