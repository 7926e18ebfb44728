// What token models remember and reuse from word to word.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

namespace trireme {

// The ids of words seen before: a table of one cache line a word, in which a new word displaces what stood
// there.
class WordCache {
 public:
  static constexpr size_t kMaxBytes = 15, kMaxIds = 11;
  WordCache() : entries_(size_t{1} << kBits) {}

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

// Working memory for const methods that run in several threads at once: as many objects as calls ever ran at
// once.
template <class Scratch>
class ScratchPool {
 public:
  // Calls work(scratch) with an object that nobody else has meanwhile.
  template <class Work>
  void with(Work&& work) const {
    std::unique_ptr<Scratch> scratch;
    {
      const std::lock_guard lock(mutex_);
      if (!idle_.empty()) {
        scratch = std::move(idle_.back());
        idle_.pop_back();
      }
    }
    if (!scratch) scratch = std::make_unique<Scratch>();
    work(*scratch);
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(scratch));
  }

 private:
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Scratch>> idle_;
};

}  // namespace trireme
