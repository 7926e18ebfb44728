// Speed of the MPI backend's collectives and messages, each beside the same call of MPI and beside a floor, in one run:
//   mpirun -np 2 --bind-to none build/bin/comm_bench [way=in_place|windows|mpi] [rounds=15] [hosts=1] [tuning=FILE]
//                                                    [pin=off|on]
// Ranks of one host work on each other's tensors in place; with way=windows through windows of shared memory, with way=mpi
// through MPI alone. A line a call and size: median time over rounds of the slowest rank, GB/s of payload (the larger of
// the rank's input and output), and how many times faster it is than
//   MPI    MPI_Allreduce (in place), MPI_Reduce_scatter_block, MPI_Allgather, MPI_Sendrecv of the same bytes;
//   floor  all_reduce: a loop that sums ranks' buffers in a shared MPI window in place (each rank a part, written to all),
//          between two spinning barriers; reduce_scatter, all_gather and messages: the bytes that a rank must read and write, at the
//          rate at which the ranks together copy memory of that size, right then, past the caches where that is faster, and
//          two barriers: inputs must be there before they are read, and may change after they were.
// All are interleaved round by round. With hosts=2 ranks take themselves to be on so many hosts, a block of ranks on each;
// the last column is then how many times faster a call is than the same one through MPI alone. With tuning=FILE the ways are
// those of a file of `trireme doctor --tune`.
#include <immintrin.h>
#include <mpi.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "bench/arguments.h"
#include "comm/mpi.h"
#include "trainer/rank_cores.h"
#include "trainer/tuning.h"

namespace trireme {
namespace {

// Seconds of one call of fn, as the slowest rank sees it.
double seconds_of(const std::function<void()>& fn, int repeats) {
  MPI_Barrier(MPI_COMM_WORLD);
  const double start = MPI_Wtime();
  for (int i = 0; i < repeats; ++i) fn();
  double mine = (MPI_Wtime() - start) / repeats, slowest = 0;
  MPI_Allreduce(&mine, &slowest, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  return slowest;
}

[[gnu::target("avx512f")]] void sum_all(float* const* p, int size, int64_t begin, int64_t end, bool past_caches) {
  for (int64_t i = begin; i < end; i += 16) {
    __m512 sum = _mm512_load_ps(p[0] + i);
    for (int r = 1; r < size; ++r) sum = _mm512_add_ps(sum, _mm512_load_ps(p[r] + i));
    for (int r = 0; r < size; ++r) past_caches ? _mm512_stream_ps(p[r] + i, sum) : _mm512_store_ps(p[r] + i, sum);
  }
  _mm_sfence();
}
[[gnu::target("avx512f")]] void copy_past_caches(float* to, const float* from, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) _mm512_stream_ps(to + i, _mm512_load_ps(from + i));
  _mm_sfence();
}

// An in-place sum of float32 in a shared MPI window, and nothing else.
class Floor {
 public:
  Floor(int rank, int size, size_t num_bytes) : rank_(rank), size_(size), parts_(size) {
    void* mine = nullptr;
    MPI_Win_allocate_shared(static_cast<MPI_Aint>(num_bytes + 4096), 1, MPI_INFO_NULL, MPI_COMM_WORLD, &mine, &window_);
    for (int r = 0; r < size; ++r) {
      MPI_Aint bytes = 0;
      int unit = 0;
      void* base = nullptr;
      MPI_Win_shared_query(window_, r, &bytes, &unit, &base);
      parts_[r] = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(base) + 63) & ~uintptr_t{63});
    }
    std::memset(parts_[rank], 0, num_bytes);
    arrived_ = reinterpret_cast<std::atomic<int>*>(reinterpret_cast<char*>(parts_[0]) + num_bytes);
    if (rank == 0) arrived_->store(0);
    MPI_Barrier(MPI_COMM_WORLD);
  }
  ~Floor() { MPI_Win_free(&window_); }
  Floor(const Floor&) = delete;

  void all_reduce(int64_t count) {
    barrier();
    const int64_t each = count / size_, begin = each * rank_, n = rank_ == size_ - 1 ? count - begin : each;
    sum_all(parts_.data(), size_, begin, begin + n, count * 4 >= (int64_t{32} << 20));
    barrier();
  }
  // Reads and writes num_bytes each, inside this rank's buffer.
  void exchange() { barrier(); }
  void copy(int64_t count) { std::memcpy(parts_[rank_] + count, parts_[rank_], static_cast<size_t>(count) * 4); }
  void copy_past(int64_t count) { copy_past_caches(parts_[rank_] + count, parts_[rank_], count); }

 private:
  void barrier() {
    phase_ += size_;
    arrived_->fetch_add(1);
    while (arrived_->load() < phase_) __builtin_ia32_pause();
  }
  int rank_, size_, phase_ = 0;
  MPI_Win window_ = MPI_WIN_NULL;
  std::vector<float*> parts_;
  std::atomic<int>* arrived_ = nullptr;
};

int run(const BenchArguments& arguments) {
  const std::string way = arguments.word("way", "in_place");
  check<ConfigError>(way == "in_place" || way == "windows" || way == "mpi", "way=", way,
                     "; give in_place, windows or mpi");
  check<ConfigError>(__builtin_cpu_supports("avx512f"), "the floor of comm_bench needs a processor with AVX-512");
  const int64_t rounds = std::max<int64_t>(arguments.number("rounds", 15), 1);
  int rank = 0, ranks = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  const int hosts = static_cast<int>(arguments.number("hosts", 1));
  check<ConfigError>(hosts >= 1 && hosts <= ranks, "hosts=", hosts, "; give 1 to ", ranks, ", the number of ranks");
  const std::string host = hosts == 1 ? "" : text("host", static_cast<int64_t>(rank) * hosts / ranks);
  const auto world = make_mpi_world({.share_memory = way != "mpi", .in_place = way != "windows", .host = host});
  if (const std::string file = arguments.word("tuning", ""); !file.empty()) world->use(Tuning::load(file).collectives);
  std::optional<PinnedThreads> pinned;
  if (const std::string pin = arguments.word("pin", "off"); pin != "off") {
    check<ConfigError>(pin == "on", "pin=", pin, " is neither on nor off");
    const RankCores cores = rank_cores(*world);
    const std::string problem = why_not_pinned(cores, PinMode::kOn, 1);
    check<ConfigError>(problem.empty(), "pin=on: ", problem);
    pinned.emplace(cores.share.cores, 1);
  }
  const auto flat = hosts == 1 ? nullptr : make_mpi_world({.share_memory = false, .host = host});
  const int n = ranks, next = (rank + 1) % n, previous = (rank + n - 1) % n;
  if (rank == 0)
    std::printf("%d ranks on %d hosts, %s\n%-15s %11s %12s %9s %8s %9s\n", n, hosts, way.c_str(), "call", "bytes",
                "median us", "GB/s", "x MPI", hosts == 1 ? "of floor" : "x flat");
  constexpr int64_t kMost = int64_t{64} << 20;
  Floor floor(rank, n, 2 * kMost);
  for (int64_t bytes = 1024; bytes <= kMost; bytes *= 4) {
    const int64_t count = std::max<int64_t>(1, bytes / 64 / n) * 16 * n;  // whole vectors for the floor
    const size_t payload = static_cast<size_t>(count) * 4, share = payload / n;
    const Tensor t = zeros({count}, DType::kF32), part = zeros({count / n}, DType::kF32), in = zeros({count}, DType::kF32);
    const Tensor half = zeros({count * 2}, DType::kBF16);
    struct Call {
      const char* name;
      std::function<void()> run;
      int mpi = -1, floor = -1;  // which of the others it is compared with
      int flat = -1;
      double copies = 1;         // of its bytes, if that is the copy
      std::vector<double> times{};
    };
    enum { kSum, kSumBf16, kScatter, kGather, kMessage, kMpiSum, kMpiScatter, kMpiGather, kMpiMessage, kFlatSum,
           kFlatSumBf16, kFlatScatter, kFlatGather, kFloorSum, kCopy, kCopyPast, kBarrier };
    const int elements = static_cast<int>(count), part_elements = static_cast<int>(count / n);
    // A rank of reduce_scatter reads `share` of all ranks and writes `share`; of all_gather it reads and writes `payload`;
    // a copy reads and writes `payload`.
    const double scatter_bytes = static_cast<double>(payload + share) / (2.0 * static_cast<double>(payload));
    std::vector<Call> calls = {
        {"all_reduce", [&] { world->all_reduce(t); }, kMpiSum, kFloorSum, kFlatSum},
        {"all_reduce bf16", [&] { world->all_reduce(half); }, -1, -1, kFlatSumBf16},
        {"reduce_scatter", [&] { world->reduce_scatter(t, part); }, kMpiScatter, kCopy, kFlatScatter, scatter_bytes},
        {"all_gather", [&] { world->all_gather(part, t); }, kMpiGather, kCopy, kFlatGather},
        {"send+recv", [&] {
           Work r = world->recv(in, previous, 0), s = world->send(t, next, 0);
           r.wait();
           s.wait();
         }, kMpiMessage, kCopy},
        {"MPI_Allreduce", [&] {
           MPI_Allreduce(MPI_IN_PLACE, t.raw(), elements, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
         }},
        {"MPI_Reduce_sc_b", [&] {
           MPI_Reduce_scatter_block(t.raw(), part.raw(), part_elements, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
         }},
        {"MPI_Allgather", [&] {
           MPI_Allgather(part.raw(), part_elements, MPI_FLOAT, t.raw(), part_elements, MPI_FLOAT, MPI_COMM_WORLD);
         }},
        {"MPI_Sendrecv", [&] {
           MPI_Sendrecv(t.raw(), elements, MPI_FLOAT, next, 0, in.raw(), elements, MPI_FLOAT, previous, 0, MPI_COMM_WORLD,
                        MPI_STATUS_IGNORE);
         }},
        {"flat: sum", [&] { flat->all_reduce(t); }},
        {"flat: sum bf16", [&] { flat->all_reduce(half); }},
        {"flat: scatter", [&] { flat->reduce_scatter(t, part); }},
        {"flat: gather", [&] { flat->all_gather(part, t); }},
        {"floor: sum", [&] { floor.all_reduce(count); }},
        {"floor: copy", [&] { floor.copy(count); }},
        {"floor: copy nt", [&] { floor.copy_past(count); }},
        {"floor: barrier", [&] { floor.exchange(); }},
    };
    // The floor's barriers only spin, which with more ranks than cores takes for ever.
    const auto left_out = [&](const Call& call) {
      return std::string_view(call.name).starts_with(flat ? "floor" : "flat");
    };
    const int repeats = static_cast<int>(std::clamp<int64_t>((int64_t{32} << 20) / bytes, 1, 500));
    for (int64_t round = -2; round < rounds; ++round)
      for (Call& call : calls) {
        if (left_out(call)) continue;
        const double s = seconds_of(call.run, repeats);
        if (round >= 0) call.times.push_back(s);
      }
    if (rank != 0) continue;
    const auto floor_of = [&](const Call& call) {
      if (call.floor != kCopy) return median(calls[call.floor].times);
      const double copy = std::min(median(calls[kCopy].times), median(calls[kCopyPast].times));
      return 2 * median(calls[kBarrier].times) + copy * call.copies;
    };
    for (const Call& call : calls) {
      if (left_out(call)) continue;
      const double s = median(call.times);
      std::printf("%-15s %11lld %12.1f %9.2f", call.name, static_cast<long long>(payload), s * 1e6,
                  static_cast<double>(payload) * 1e-9 / s);
      if (call.mpi >= 0)
        std::printf(" %8.2f", median(calls[call.mpi].times) / s);
      else if (call.flat >= 0)
        std::printf(" %8s", "");
      if (flat && call.flat >= 0) std::printf(" %9.2f", median(calls[call.flat].times) / s);
      if (!flat && call.floor >= 0) std::printf(" %9.2f", floor_of(call) / s);
      std::printf("\n");
    }
  }
  return 0;
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  trireme::MpiEnvironment mpi;
  try {
    return trireme::run(trireme::BenchArguments(argc, argv, {"way", "rounds", "hosts", "tuning", "pin"}));
  } catch (const std::exception& e) {
    trireme::abort_job(1, e.what());
  }
}
