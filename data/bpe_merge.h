// Byte-pair encoding of one word (Sennrich et al. 2016, arXiv:1508.07909): of the adjacent pairs of symbols
// that a rule covers, the one of lowest rank, and of those the leftmost, is merged, until none is left.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

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
  // Replaces symbols[begin, end) by what they merge to.
  void merge(const BpeRules& rules, std::vector<int32_t>& symbols, size_t begin);

 private:
  size_t merge_short(const BpeRules& rules, int32_t* symbols, size_t count);
  size_t merge_long(const BpeRules& rules, int32_t* symbols, size_t count);

  static constexpr size_t kShort = 32;  // up to here a scan for the lowest rank beats the queue
  struct Link {
    uint32_t previous, next;
    uint32_t rank;  // of the pair that begins here; kNone also for symbols that are gone
    int32_t result;
  };
  std::vector<Link> links_;
  std::vector<uint64_t> queue_;  // rank << 32 | position
};

// The ids of words seen before: a table of one cache line a word, in which a new word displaces what stood
// there.
class BpeWordCache {
 public:
  static constexpr size_t kMaxBytes = 15, kMaxIds = 11;
  BpeWordCache() : entries_(size_t{1} << kBits) {}

  struct Key {
    uint64_t words[2];
  };
  // REQUIRES: word is not empty and not longer than kMaxBytes.
  static Key key_of(std::string_view word) {
    char bytes[16] = {};
    std::memcpy(bytes, word.data(), word.size());
    bytes[15] = static_cast<char>(word.size());
    Key key;
    std::memcpy(&key, bytes, sizeof key);
    return key;
  }
  // Appends the word's ids if it is known.
  bool append(const Key& key, std::vector<int32_t>& ids) const {
    const Entry& entry = entries_[place(key)];
    if (entry.key.words[0] != key.words[0] || entry.key.words[1] != key.words[1]) return false;
    ids.insert(ids.end(), entry.ids.begin(), entry.ids.begin() + entry.count);
    return true;
  }
  void store(const Key& key, std::span<const int32_t> ids) {
    if (ids.size() > kMaxIds) return;
    Entry& entry = entries_[place(key)];
    entry.key = key;
    entry.count = static_cast<uint32_t>(ids.size());
    std::copy(ids.begin(), ids.end(), entry.ids.begin());
  }

 private:
  static constexpr int kBits = 14;
  static size_t place(const Key& key) {
    const uint64_t mixed = (key.words[0] ^ (key.words[1] * 0xC2B2AE3D27D4EB4F)) * 0x9E3779B97F4A7C15;
    return (mixed ^ mixed >> 29) * 0xBF58476D1CE4E5B9 >> (64 - kBits);
  }
  struct alignas(64) Entry {
    Key key{{0, 0}};  // no word: a word's last key byte, its length, is not 0
    uint32_t count = 0;
    std::array<int32_t, kMaxIds> ids;
  };
  std::vector<Entry> entries_;
};

}  // namespace trireme
