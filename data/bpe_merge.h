// Byte-pair encoding of one word (Sennrich et al. 2016, arXiv:1508.07909): of the adjacent pairs of symbols
// that a rule covers, the one of lowest rank, and of those the leftmost, is merged, until none is left.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/aligned_text.h"

namespace trireme {

struct BpeRule {
  int32_t left, right;  // ids of the two symbols
  int32_t rank;         // lower goes first; rules may share a rank
  int32_t result;
};

// A hash table from (left, right) to (rank, result).
class BpeRules {
 public:
  static constexpr uint32_t kNone = 0xFFFFFFFF;
  struct Merge {
    uint32_t rank;  // kNone where no rule covers the pair
    int32_t result;
  };

  BpeRules() : BpeRules(std::span<const BpeRule>()) {}
  // Of two rules for one pair the later counts. REQUIRES: ids and ranks are at least 0.
  explicit BpeRules(std::span<const BpeRule> rules);

  Merge find(int32_t left, int32_t right) const {
    const uint64_t key = key_of(left, right);
    for (size_t at = key * kMultiplier >> shift_;; at = (at + 1) & mask_) {
      const Slot& slot = slots_[at];
      if (slot.key == key) return slot.merge;
      if (slot.key == kEmpty) return {kNone, -1};
    }
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  static constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15;
  static uint64_t key_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge{kNone, -1};
  };
  std::vector<Slot> slots_;
  size_t mask_;
  int shift_;
};

// Merges one word at a time, keeping its buffers between words. Takes n log n steps for n symbols.
class BpeMerger {
 public:
  // Replaces symbols[begin, end) by what they merge to. `ranges`, if given, has one range for each of them,
  // and one for each merged symbol afterwards, from its first part's beginning to its last part's end.
  void merge(const BpeRules& rules, std::vector<int32_t>& symbols, size_t begin,
             std::vector<ByteRange>* ranges = nullptr);

 private:
  size_t merge_short(const BpeRules& rules, int32_t* symbols, size_t count, ByteRange* ranges);
  size_t merge_long(const BpeRules& rules, int32_t* symbols, size_t count, ByteRange* ranges);

  static constexpr size_t kShort = 32;  // up to here a scan for the lowest rank beats the queue
  struct Link {
    uint32_t previous, next;
    uint32_t rank;  // of the pair that begins here; kNone also for symbols that are gone
    int32_t result;
  };
  std::vector<Link> links_;
  std::vector<uint64_t> queue_;  // rank << 32 | position
};

}  // namespace trireme
