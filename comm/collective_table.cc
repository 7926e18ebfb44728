#include "comm/collective_table.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "base/words.h"

namespace trireme {
namespace {

constexpr std::string_view kHeading = "trireme collective table 1";
constexpr int kClassBits = 6, kMaxClass = 40, kMaxPlaces = 1 << 24;  // hosts, or ranks of one
constexpr size_t kPastCachesBytes = size_t{32} << 20;                 // written by a rank in one call

// Sizes of a call in bytes, over the ranks of one host.
size_t input_bytes(const CollectiveCase& c) {
  const bool parted = c.kind == OpKind::kReduceScatter || c.kind == OpKind::kAllToAll;
  return c.bytes * static_cast<size_t>(parted ? c.group.ranks : 1);
}
size_t output_bytes(const CollectiveCase& c) {
  const bool whole = c.kind == OpKind::kAllGather || c.kind == OpKind::kAllToAll;
  return c.bytes * static_cast<size_t>(whole ? c.group.ranks : 1);
}

// Measured with bench/comm_bench between two ranks.
CollectiveWay rule(const CollectiveCase& c) {
  if (c.group.hosts > 1)
    return c.group.ranks > 1 && c.kind != OpKind::kAllToAll ? CollectiveWay::kTwoLevel : CollectiveWay::kMpi;
  if (input_bytes(c) <= 256) return CollectiveWay::kPosts;
  return output_bytes(c) >= kPastCachesBytes ? CollectiveWay::kPastCaches : CollectiveWay::kInPlace;
}

int class_of(size_t bytes) { return bytes == 0 ? 0 : std::min(kMaxClass, static_cast<int>(std::bit_width(bytes)) - 1); }

DType type_class(DType dtype) { return size_of(dtype) == 2 ? DType::kBF16 : DType::kF32; }

}  // namespace

std::string_view name_of(CollectiveWay way) {
  switch (way) {
    case CollectiveWay::kPosts: return "posts";
    case CollectiveWay::kInPlace: return "in_place";
    case CollectiveWay::kPastCaches: return "past_caches";
    case CollectiveWay::kMpi: return "mpi";
    case CollectiveWay::kTwoLevel: return "two_level";
  }
  return "?";
}

std::vector<CollectiveWay> ways_of(const CollectiveCase& c) {
  if (c.group.hosts > 1) {
    if (rule(c) == CollectiveWay::kMpi) return {CollectiveWay::kMpi};
    return {CollectiveWay::kMpi, CollectiveWay::kTwoLevel};
  }
  std::vector<CollectiveWay> ways;
  const size_t summed = c.kind == OpKind::kAllReduce ? input_bytes(c) * static_cast<size_t>(c.group.ranks) : 0;
  if (input_bytes(c) <= kPostedBytes && summed <= kPostedSumBytes) ways.push_back(CollectiveWay::kPosts);
  ways.push_back(CollectiveWay::kInPlace);
  ways.push_back(CollectiveWay::kPastCaches);
  return ways;
}

uint64_t CollectiveTable::key_of(const CollectiveCase& c) {
  const uint64_t two_bytes = type_class(c.dtype) == DType::kBF16;
  return static_cast<uint64_t>(c.kind) << 60 | two_bytes << 59 | static_cast<uint64_t>(c.group.hosts) << 31 |
         static_cast<uint64_t>(c.group.ranks) << kClassBits | static_cast<uint64_t>(class_of(c.bytes));
}

CollectiveWay CollectiveTable::choose(const CollectiveCase& c) const {
  if (entries_.empty() || std::find(std::begin(kTabledCalls), std::end(kTabledCalls), c.kind) == std::end(kTabledCalls))
    return rule(c);
  const uint64_t key = key_of(c);
  const auto after = std::upper_bound(entries_.begin(), entries_.end(), key,
                                      [](uint64_t k, const Entry& e) { return k < e.key; });
  if (after == entries_.begin()) return rule(c);
  const Entry& entry = *(after - 1);
  if (entry.key == key) return entry.way;
  // Above the largest of this call, type and group?
  const bool same = entry.key >> kClassBits == key >> kClassBits;
  const bool more = after != entries_.end() && after->key >> kClassBits == key >> kClassBits;
  return same && !more ? entry.way : rule(c);
}

void CollectiveTable::set(const CollectiveCase& c, CollectiveWay way) {
  const uint64_t key = key_of(c);
  const auto it = std::lower_bound(entries_.begin(), entries_.end(), key,
                                   [](const Entry& e, uint64_t k) { return e.key < k; });
  if (it != entries_.end() && it->key == key)
    it->way = way;
  else
    entries_.insert(it, {key, way});
}

std::string CollectiveTable::to_text() const {
  std::string out = text(kHeading, "\n");
  if (!entries_.empty()) out += "# call dtype hosts ranks bytes way\n";
  for (const Entry& e : entries_)
    out += text(name_of(static_cast<OpKind>(e.key >> 60)), ' ', e.key >> 59 & 1 ? DType::kBF16 : DType::kF32, ' ',
                e.key >> 31 & ((1u << 28) - 1), ' ', e.key >> kClassBits & (kMaxPlaces * 2 - 1), ' ',
                uint64_t{1} << (e.key & 63), ' ', name_of(e.way), '\n');
  return out;
}

CollectiveTable CollectiveTable::parse(std::string_view contents, const std::string& where) {
  constexpr DType kTypes[] = {DType::kF32, DType::kBF16};
  CollectiveTable table;
  int line_number = 0;
  bool heading = false;
  const auto require = [&](bool ok, const auto&... message) {
    check<FileError>(ok, where, ": line ", line_number, ": ", message...);
  };
  while (!contents.empty()) {
    const size_t end = std::min(contents.find('\n'), contents.size());
    const std::string_view line = contents.substr(0, end);
    contents.remove_prefix(std::min(end + 1, contents.size()));
    ++line_number;
    const std::vector<std::string_view> words = words_of(line);
    if (words.empty() || words[0].starts_with('#')) continue;
    if (!heading) {
      require(line == kHeading, "want \"", kHeading, "\"");
      heading = true;
      continue;
    }
    require(words.size() == 6, "want 6 words: call dtype hosts ranks bytes way");
    CollectiveCase c;
    const auto kind = named(kTabledCalls, words[0], [](OpKind k) { return name_of(k); });
    require(kind.has_value(), "call \"", words[0],
            "\" is unknown; want all_reduce, all_gather, reduce_scatter, broadcast or all_to_all");
    const auto dtype = named(kTypes, words[1], [](DType t) { return name_of(t); });
    require(dtype.has_value(), "dtype \"", words[1], "\" is neither f32 nor bf16");
    const auto hosts = integer_of(words[2]), ranks = integer_of(words[3]), bytes = integer_of(words[4]);
    require(hosts && *hosts >= 1 && *hosts <= kMaxPlaces, "hosts \"", words[2], "\" is not from 1 to ", kMaxPlaces);
    require(ranks && *ranks >= 1 && *ranks <= kMaxPlaces, "ranks \"", words[3], "\" is not from 1 to ", kMaxPlaces);
    require(bytes && *bytes >= 1 && *bytes <= int64_t{1} << kMaxClass && std::has_single_bit(uint64_t(*bytes)), "bytes \"",
            words[4], "\" is not a power of two up to 2^", kMaxClass);
    c = {*kind, *dtype, {static_cast<int>(*hosts), static_cast<int>(*ranks)}, static_cast<size_t>(*bytes)};
    const auto way = named(kCollectiveWays, words[5], [](CollectiveWay w) { return name_of(w); });
    require(way.has_value(), "way \"", words[5], "\" is unknown; want posts, in_place, past_caches, mpi or two_level");
    const std::vector<CollectiveWay> possible = ways_of(c);
    require(std::find(possible.begin(), possible.end(), *way) != possible.end(), name_of(c.kind), " of ", c.bytes,
            " bytes among ", c.group.ranks, " ranks on each of ", c.group.hosts, " hosts cannot go by ", name_of(*way));
    const size_t before = table.entries_.size();
    table.set(c, *way);
    require(table.entries_.size() > before, "this class was given before");
  }
  ++line_number;
  require(heading, "the file ends before \"", kHeading, "\"");
  return table;
}

}  // namespace trireme
