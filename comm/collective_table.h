// Which way a collective takes. All ways give the same bits; which is the fastest depends on the machine, on how a group's
// ranks lie on hosts, and on the size. A table is rules (compiled in, from measurements) and, above them, entries measured
// on one machine (comm/collective_timing.h). Its text form:
//
//   trireme collective table 1
//   # call     dtype hosts ranks bytes way
//   all_reduce f32   1     2     4096  in_place
//
// hosts: of the group; ranks: of the group on the host that has most of them; bytes: of one part (Collective::count), from
// this power of two to the next. Sizes above the largest of a call, type and group go as that one does. Types of two bytes
// are bf16, all others f32.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "comm/op_board.h"

namespace trireme {

enum class CollectiveWay : uint8_t {
  // Within a host, of tensors in memory that its ranks share. (Others go through windows; there is nothing to choose.)
  kPosts,       // inputs are copied to where ranks say what they call: one barrier
  kInPlace,     // ranks read and write each other's tensors: two barriers
  kPastCaches,  // the same, with stores that leave the caches alone
  // Across hosts.
  kMpi,         // all by MPI
  kTwoLevel,    // shared memory inside each host, MPI between them
};
constexpr CollectiveWay kCollectiveWays[] = {CollectiveWay::kPosts, CollectiveWay::kInPlace, CollectiveWay::kPastCaches,
                                             CollectiveWay::kMpi, CollectiveWay::kTwoLevel};
std::string_view name_of(CollectiveWay way);

// What tables tell apart. split and barrier have one way.
constexpr OpKind kTabledCalls[] = {OpKind::kAllReduce, OpKind::kAllGather, OpKind::kReduceScatter, OpKind::kBroadcast,
                                   OpKind::kAllToAll};

// Inputs up to so many bytes can be posted; of an all_reduce, where every rank reduces everything, those of all ranks.
constexpr size_t kPostedBytes = 8 << 10, kPostedSumBytes = 16 << 10;

// How a group's ranks lie on hosts.
struct GroupShape {
  int hosts = 1, ranks = 1;  // ranks: on the host that has most
  bool operator==(const GroupShape&) const = default;
};

struct CollectiveCase {
  OpKind kind = OpKind::kAllReduce;  // one of kTabledCalls
  DType dtype = DType::kF32;
  GroupShape group;
  size_t bytes = 0;  // of one part
};

// The ways that such a call has, as far as its shape tells, the rule's among them. One for other calls than kTabledCalls.
std::vector<CollectiveWay> ways_of(const CollectiveCase& c);

class CollectiveTable {
 public:
  CollectiveWay choose(const CollectiveCase& c) const;
  // Makes `way` that of the class of `c`. REQUIRES: one of ways_of(c).
  void set(const CollectiveCase& c, CollectiveWay way);
  bool empty() const { return entries_.empty(); }
  size_t num_entries() const { return entries_.size(); }

  std::string to_text() const;
  // Throws FileError "where: line L: ..." on anything that to_text() would not write, comments and blanks aside.
  static CollectiveTable parse(std::string_view text, const std::string& where);
  bool operator==(const CollectiveTable&) const = default;

 private:
  struct Entry {
    uint64_t key;  // call, type, group and the power of two, in this order, packed; sorted
    CollectiveWay way;
    bool operator==(const Entry&) const = default;
  };
  static uint64_t key_of(const CollectiveCase& c);
  std::vector<Entry> entries_;
};

}  // namespace trireme
