#include "comm/collective_timing.h"

#include <algorithm>
#include <chrono>

namespace trireme {
namespace {

constexpr size_t kLeastBytes = 64;
constexpr size_t kLeastPastCaches = size_t{1} << 20;  // below, what is written still lies in every cache that will read it
constexpr double kWorthwhile = 0.95;                  // of the rule's time
constexpr size_t kRoundBytes = size_t{8} << 20;       // moved by a rank in one round, so that clocks can tell ways apart

void call(Communicator& group, const CollectiveCase& c, const Tensor& whole, const Tensor& part, const Tensor& other) {
  switch (c.kind) {
    case OpKind::kAllReduce: return group.all_reduce(part);
    case OpKind::kAllGather: return group.all_gather(part, whole);
    case OpKind::kReduceScatter: return group.reduce_scatter(whole, part);
    case OpKind::kBroadcast: return group.broadcast(part, 0);
    case OpKind::kAllToAll: return group.all_to_all(whole, other);
    default: TRIREME_ASSERT(false);
  }
}

// The largest of every element over all ranks.
std::vector<double> slowest(Communicator& world, const std::vector<double>& mine) {
  std::vector<float> values(mine.begin(), mine.end());
  const Tensor t = tensor_of<float>(values, {static_cast<int64_t>(values.size())});
  world.all_reduce(t, ReduceOp::kMax);
  const auto all = t.span<float>();
  return {all.begin(), all.end()};
}

double median(std::vector<double> times) {
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

std::string size_name(size_t bytes) {
  if (bytes >= size_t{1} << 20) return text(bytes >> 20, " MiB");
  if (bytes >= size_t{1} << 10) return text(bytes >> 10, " KiB");
  return text(bytes, " B");
}

}  // namespace

std::vector<CollectiveTiming> time_collectives(Communicator& world, Communicator& group, size_t most_bytes, int rounds) {
  using Clock = std::chrono::steady_clock;
  const GroupShape shape = group.shape();
  const Tensor ends =
      tensor_of<int32_t>({shape.hosts, -shape.hosts, shape.ranks, -shape.ranks, group.size(), -group.size()}, {6});
  world.all_reduce(ends, ReduceOp::kMax);
  const auto most = ends.span<int32_t>();
  std::vector<CollectiveTiming> timings;
  if (most[0] != -most[1] || most[2] != -most[3] || most[4] != -most[5] || group.size() == 1) return timings;

  const size_t size = static_cast<size_t>(group.size());
  for (OpKind kind : kTabledCalls) {
    const bool sums = kind == OpKind::kAllReduce || kind == OpKind::kReduceScatter;
    const bool wholes = kind != OpKind::kAllReduce && kind != OpKind::kBroadcast;
    for (DType dtype : {DType::kF32, DType::kBF16}) {
      if (!sums && dtype != DType::kF32) continue;
      for (size_t bytes = kLeastBytes; bytes * (wholes ? size : 1) <= most_bytes; bytes *= 2) {
        CollectiveTiming timing{{kind, dtype, shape, bytes}, {}};
        for (CollectiveWay way : ways_of(timing.which))
          if (way != CollectiveWay::kPastCaches || bytes >= kLeastPastCaches) timing.ways.push_back({way, 0});
        if (timing.ways.size() < 2) continue;
        const int64_t count = static_cast<int64_t>(bytes / size_of(dtype)), all = count * static_cast<int64_t>(size);
        const Tensor part = zeros({count}, dtype), whole = zeros({wholes ? all : 1}, dtype),
                     other = zeros({kind == OpKind::kAllToAll ? all : 1}, dtype);
        const int repeats = static_cast<int>(std::clamp<size_t>(kRoundBytes / (bytes * size), 1, 64));
        std::vector<std::vector<double>> times(timing.ways.size());
        for (int round = -1; round < rounds; ++round)
          for (size_t w = 0; w < timing.ways.size(); ++w) {
            CollectiveTable table;
            table.set(timing.which, timing.ways[w].way);
            group.use(table);
            world.barrier();
            const Clock::time_point begin = Clock::now();
            for (int i = 0; i < repeats; ++i) call(group, timing.which, whole, part, other);
            if (round >= 0) times[w].push_back(std::chrono::duration<double>(Clock::now() - begin).count() / repeats);
          }
        std::vector<double> seconds;
        for (auto& of_way : times) seconds.push_back(median(std::move(of_way)));
        seconds = slowest(world, seconds);
        for (size_t w = 0; w < seconds.size(); ++w) timing.ways[w].seconds = seconds[w];
        std::stable_sort(timing.ways.begin(), timing.ways.end(),
                         [](const auto& a, const auto& b) { return a.seconds < b.seconds; });
        timings.push_back(std::move(timing));
      }
    }
  }
  group.use(CollectiveTable());
  return timings;
}

void choose_fastest(const std::vector<CollectiveTiming>& timings, CollectiveTable& table) {
  for (const CollectiveTiming& timing : timings) {
    CollectiveWay chosen = CollectiveTable().choose(timing.which);
    for (const auto& way : timing.ways)
      if (way.way == chosen && timing.ways[0].seconds < kWorthwhile * way.seconds) chosen = timing.ways[0].way;
    table.set(timing.which, chosen);
  }
}

std::string describe(const std::vector<CollectiveTiming>& timings, const CollectiveTable& table) {
  std::string out;
  for (size_t i = 0; i < timings.size();) {
    const CollectiveCase& first = timings[i].which;
    out += text("  ", name_of(first.kind), ' ', first.dtype, ", ", first.group.hosts,
                first.group.hosts == 1 ? " host" : " hosts", " of ", first.group.ranks, " ranks:");
    const char* separator = " ";
    while (i < timings.size() && timings[i].which.kind == first.kind && timings[i].which.dtype == first.dtype &&
           timings[i].which.group == first.group) {
      const CollectiveWay way = table.choose(timings[i].which);
      const size_t from = timings[i].which.bytes;
      for (++i; i < timings.size() && timings[i].which.kind == first.kind && timings[i].which.dtype == first.dtype &&
                timings[i].which.group == first.group && table.choose(timings[i].which) == way;)
        ++i;
      out += text(separator, name_of(way), " from ", size_name(from));
      separator = ", ";
    }
    out += '\n';
  }
  return out;
}

}  // namespace trireme
