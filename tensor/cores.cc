#include "tensor/cores.h"

#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <memory>

#include "base/error.h"

namespace trireme {
namespace {

constexpr int kMostCores = 1 << 20;

struct FreeMask {
  void operator()(cpu_set_t* mask) const { CPU_FREE(mask); }
};
using Mask = std::unique_ptr<cpu_set_t, FreeMask>;

// Of the calling thread. Returns 0 or an errno.
int run_on(const Cores& cores) {
  const int most = *std::max_element(cores.begin(), cores.end()) + 1;
  const size_t bytes = CPU_ALLOC_SIZE(most);
  const Mask mask(CPU_ALLOC(most));
  if (!mask) return ENOMEM;
  CPU_ZERO_S(bytes, mask.get());
  for (int c : cores) CPU_SET_S(c, bytes, mask.get());
  return sched_setaffinity(0, bytes, mask.get()) == 0 ? 0 : errno;
}

}  // namespace

Cores allowed_cores() {
  // The kernel wants room for all cores that it could have, and does not say how many those are.
  for (int most = CPU_SETSIZE; most <= kMostCores; most *= 4) {
    const size_t bytes = CPU_ALLOC_SIZE(most);
    const Mask mask(CPU_ALLOC(most));
    if (!mask) return {};
    if (sched_getaffinity(0, bytes, mask.get()) != 0) {
      if (errno == EINVAL) continue;
      return {};
    }
    Cores cores;
    for (int c = 0; c < most; ++c)
      if (CPU_ISSET_S(c, bytes, mask.get())) cores.push_back(c);
    return cores;
  }
  return {};
}

Cores cores_of_list(std::string_view list) {
  while (!list.empty() && (list.back() == '\n' || list.back() == ' ')) list.remove_suffix(1);
  Cores cores;
  const char* at = list.data();
  const char* const end = at + list.size();
  while (at != end) {
    int first = 0, last = 0;
    auto [next, error] = std::from_chars(at, end, first);
    if (error != std::errc() || first < 0 || first > kMostCores) return {};
    last = first;
    if (next != end && *next == '-') {
      const auto range = std::from_chars(next + 1, end, last);
      if (range.ec != std::errc() || last < first || last > kMostCores) return {};
      next = range.ptr;
    }
    for (int c = first; c <= last; ++c) cores.push_back(c);
    if (next != end && (*next != ',' || next + 1 == end)) return {};
    at = next == end ? end : next + 1;
  }
  std::sort(cores.begin(), cores.end());
  cores.erase(std::unique(cores.begin(), cores.end()), cores.end());
  return cores;
}

std::string list_of_cores(Cores cores) {
  std::sort(cores.begin(), cores.end());
  std::string list;
  for (size_t i = 0, next; i < cores.size(); i = next) {
    for (next = i + 1; next < cores.size() && cores[next] == cores[next - 1] + 1;) ++next;
    list += text(list.empty() ? "" : ",", cores[i]);
    if (next > i + 1) list += text("-", cores[next - 1]);
  }
  return list;
}

std::map<int, int> physical_cores(const Cores& cores, const std::filesystem::path& cpus) {
  std::map<int, int> physical;
  for (int c : cores) {
    std::ifstream in(cpus / text("cpu", c) / "topology" / "thread_siblings_list");
    std::string line;
    std::getline(in, line);
    const Cores siblings = cores_of_list(line);
    physical[c] = std::binary_search(siblings.begin(), siblings.end(), c) ? siblings.front() : c;
  }
  return physical;
}

CoreShare core_share(const std::vector<Cores>& allowed, int rank, const std::map<int, int>& physical) {
  const Cores& mine = allowed.at(static_cast<size_t>(rank));
  if (mine.empty()) return {{}, false, "the system does not say on which cores it may run"};
  int sharers = 0, place = 0;
  for (int r = 0; r < static_cast<int>(allowed.size()); ++r) {
    const Cores& other = allowed[static_cast<size_t>(r)];
    if (other == mine) {
      place += r < rank;
      ++sharers;
    } else if (Cores common; std::set_intersection(mine.begin(), mine.end(), other.begin(), other.end(),
                                                   std::back_inserter(common)), !common.empty()) {
      return {{}, false, text("it may run on cores ", list_of_cores(mine), ", another rank on ", list_of_cores(other),
                              ": they overlap in part")};
    }
  }
  // Logical cores by their physical one, then one after another.
  std::map<int, Cores> by_physical;
  for (int c : mine) {
    const auto found = physical.find(c);
    by_physical[found == physical.end() ? c : found->second].push_back(c);
  }
  std::vector<Cores> units;
  for (auto& [core, siblings] : by_physical) units.push_back(std::move(siblings));
  if (static_cast<int>(units.size()) < sharers) {
    units.clear();
    for (int c : mine) units.push_back({c});
  }
  const int64_t count = static_cast<int64_t>(units.size());
  if (count < sharers)
    return {{}, false, text(sharers, " ranks share ", count, count == 1 ? " core" : " cores")};
  CoreShare share;
  share.own = sharers == 1;
  const auto first = units.begin() + place * count / sharers, last = units.begin() + (place + 1) * count / sharers;
  for (size_t sibling = 0, before = 1; share.cores.size() != before; ++sibling) {
    before = share.cores.size();
    for (auto unit = first; unit != last; ++unit)
      if (sibling < unit->size()) share.cores.push_back((*unit)[sibling]);
  }
  return share;
}

PinnedThreads::PinnedThreads(Cores share, int threads)
    : before_(allowed_cores()), share_(std::move(share)), threads_(threads) {
  TRIREME_ASSERT(threads >= 1 && static_cast<size_t>(threads) <= share_.size());
  renew();
}

PinnedThreads::~PinnedThreads() {
  if (before_.empty()) return;
#pragma omp parallel num_threads(threads_)
  run_on(before_);
}

void PinnedThreads::renew() {
  std::atomic<int> error = 0;
  if (const int e = run_on(share_)) error = e;
#pragma omp parallel num_threads(threads_)
  if (const int t = omp_get_thread_num(); t > 0)
    if (const int e = run_on({share_[static_cast<size_t>(t)]})) error = e;
  problem_ = error ? text("sched_setaffinity: ", std::strerror(error)) : "";
}

}  // namespace trireme
