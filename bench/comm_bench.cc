// Speed of the MPI backend's collectives and messages beside plain MPI_Allreduce, in one run:
//   mpirun -np 2 --bind-to none build/bin/comm_bench [mpi]
// With `mpi`, ranks of one host do not use the memory they share. A line a call and size: median time over rounds of
// the slowest rank, GB/s of payload (that is bytes of the rank's input, not of the wire), and the time of an in-place
// MPI_Allreduce of the same bytes, interleaved with it, divided by ours (above 1: ours is faster).
#include <mpi.h>

#include <cstdio>
#include <cstring>
#include <functional>
#include <vector>

#include "bench/arguments.h"
#include "comm/mpi.h"

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

int run(bool share_memory) {
  const auto world = make_mpi_world({.share_memory = share_memory});
  const int n = world->size(), next = (world->rank() + 1) % n, previous = (world->rank() + n - 1) % n;
  if (world->rank() == 0)
    std::printf("%d ranks, %s\n%-15s %11s %12s %9s %14s\n", n, share_memory ? "shared memory" : "MPI alone", "call",
                "bytes", "median us", "GB/s", "x MPI_Allreduce");
  for (int64_t bytes = 1024; bytes <= int64_t{64} << 20; bytes *= 4) {
    const int64_t count = bytes / 4 / n * n;
    const Tensor t = zeros({count}, DType::kF32), part = zeros({count / n}, DType::kF32);
    const Tensor half = zeros({count * 2}, DType::kBF16);
    struct Call {
      const char* name;
      std::function<void()> run;
      std::vector<double> times;
    };
    Call calls[] = {
        {"all_reduce", [&] { world->all_reduce(t); }, {}},
        {"all_reduce bf16", [&] { world->all_reduce(half); }, {}},
        {"reduce_scatter", [&] { world->reduce_scatter(t, part); }, {}},
        {"all_gather", [&] { world->all_gather(part, t); }, {}},
        {"send+recv", [&] {
           const Tensor &out = t, &in = half;
           Work r = world->recv(in, previous, 0), s = world->send(out.reshape({count}), next, 0);
           r.wait();
           s.wait();
         }, {}},
        {"MPI_Allreduce", [&] {
           MPI_Allreduce(MPI_IN_PLACE, t.raw(), static_cast<int>(count), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
         }, {}},
    };
    const int repeats = static_cast<int>(std::clamp<int64_t>((int64_t{4} << 20) / bytes, 1, 50));
    for (int round = -1; round < 9; ++round)
      for (Call& call : calls) {
        const double s = seconds_of(call.run, repeats);
        if (round >= 0) call.times.push_back(s);
      }
    const double plain = median(calls[std::size(calls) - 1].times);
    if (world->rank() == 0)
      for (const Call& call : calls) {
        const double s = median(call.times);
        std::printf("%-15s %11lld %12.1f %9.2f %14.2f\n", call.name, static_cast<long long>(count * 4), s * 1e6,
                    static_cast<double>(count) * 4e-9 / s, plain / s);
      }
  }
  return 0;
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  trireme::MpiEnvironment mpi;
  try {
    return trireme::run(argc < 2 || std::strcmp(argv[1], "mpi") != 0);
  } catch (const std::exception& e) {
    trireme::abort_job(1, e.what());
  }
}
