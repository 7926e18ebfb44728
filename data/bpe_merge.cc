#include "data/bpe_merge.h"

#include <algorithm>
#include <bit>
#include <functional>

namespace trireme {

BpeRules::BpeRules(std::span<const BpeRule> rules) {
  const size_t size = std::bit_ceil(std::max<size_t>(16, rules.size() * 2));
  slots_.resize(size);
  mask_ = size - 1;
  shift_ = 64 - std::countr_zero(size);
  for (const BpeRule& rule : rules) {
    const uint64_t key = key_of(rule.left, rule.right);
    size_t at = key * kMultiplier >> shift_;
    while (slots_[at].key != kEmpty && slots_[at].key != key) at = (at + 1) & mask_;
    slots_[at] = {key, {static_cast<uint32_t>(rule.rank), rule.result}};
  }
}

void BpeMerger::merge(const BpeRules& rules, std::vector<int32_t>& symbols, size_t begin,
                      std::vector<ByteRange>* ranges) {
  const size_t count = symbols.size() - begin;
  if (count < 2) return;
  int32_t* first = symbols.data() + begin;
  ByteRange* range = ranges ? ranges->data() : nullptr;
  const size_t kept =
      count <= kShort ? merge_short(rules, first, count, range) : merge_long(rules, first, count, range);
  symbols.resize(begin + kept);
  if (ranges) ranges->resize(kept);
}

size_t BpeMerger::merge_short(const BpeRules& rules, int32_t* symbols, size_t count, ByteRange* ranges) {
  BpeRules::Merge merges[kShort];  // of symbols i and i + 1
  for (size_t i = 0; i + 1 < count; ++i) merges[i] = rules.find(symbols[i], symbols[i + 1]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i)
      if (merges[i].rank < merges[best].rank) best = i;
    if (merges[best].rank == BpeRules::kNone) break;
    symbols[best] = merges[best].result;
    if (ranges) {
      ranges[best].end = ranges[best + 1].end;
      std::copy(ranges + best + 2, ranges + count, ranges + best + 1);
    }
    --count;
    for (size_t i = best + 1; i < count; ++i) {
      symbols[i] = symbols[i + 1];
      merges[i - 1] = merges[i];
    }
    if (best + 1 < count) merges[best] = rules.find(symbols[best], symbols[best + 1]);
    if (best > 0) merges[best - 1] = rules.find(symbols[best - 1], symbols[best]);
  }
  return count;
}

size_t BpeMerger::merge_long(const BpeRules& rules, int32_t* symbols, size_t count, ByteRange* ranges) {
  const uint32_t end = static_cast<uint32_t>(count);
  links_.resize(count);
  queue_.clear();
  for (uint32_t i = 0; i < end; ++i) {
    const BpeRules::Merge merge =
        i + 1 < end ? rules.find(symbols[i], symbols[i + 1]) : BpeRules::Merge{BpeRules::kNone, -1};
    links_[i] = {i - 1, i + 1, merge.rank, merge.result};
    if (merge.rank != BpeRules::kNone) queue_.push_back(static_cast<uint64_t>(merge.rank) << 32 | i);
  }
  const auto later = std::greater<uint64_t>();
  std::make_heap(queue_.begin(), queue_.end(), later);
  const auto look_up = [&](uint32_t at) {
    Link& link = links_[at];
    const BpeRules::Merge merge =
        link.next < end ? rules.find(symbols[at], symbols[link.next]) : BpeRules::Merge{BpeRules::kNone, -1};
    link.rank = merge.rank;
    link.result = merge.result;
    if (merge.rank == BpeRules::kNone) return;
    queue_.push_back(static_cast<uint64_t>(merge.rank) << 32 | at);
    std::push_heap(queue_.begin(), queue_.end(), later);
  };
  while (!queue_.empty()) {
    const uint32_t at = static_cast<uint32_t>(queue_.front());
    const uint32_t rank = static_cast<uint32_t>(queue_.front() >> 32);
    std::pop_heap(queue_.begin(), queue_.end(), later);
    queue_.pop_back();
    Link& link = links_[at];
    if (link.rank != rank) continue;  // the pair it was queued for is no more
    symbols[at] = link.result;
    links_[link.next].rank = BpeRules::kNone;
    link.next = links_[link.next].next;
    if (link.next < end) links_[link.next].previous = at;
    look_up(at);
    if (at != 0) look_up(link.previous);
  }
  size_t kept = 0;
  for (uint32_t at = 0; at < end; at = links_[at].next) {
    if (ranges) ranges[kept] = {ranges[at].begin, ranges[links_[at].next - 1].end};
    symbols[kept++] = symbols[at];
  }
  return kept;
}

}  // namespace trireme
