// The suite under mpirun: every case on tensors in place, through windows of shared memory, through MPI alone, and on ranks
// that take themselves to be on two hosts: a half on each (of three ranks, two and one), and every other one; and by tables
// that choose another way than the rules wherever there is one.
#include <gtest/gtest.h>
#include <mpi.h>

#include <iostream>

#include "comm/collective_timing.h"
#include "comm/mpi.h"
#include "comm/watchdog.h"
#include "comm_values.h"
#include "suite.h"

namespace trireme {
namespace {

enum Way { kInPlace, kThroughWindows, kThroughMpi, kOnTwoHosts, kOnTwoHostsInTurn, kOnTwoHostsThroughMpi, kInPlaceByTable,
           kOnTwoHostsByTable, kNumWays };
constexpr const char* kNames[] = {"InPlace", "ThroughWindows", "ThroughMpi", "OnTwoHosts", "OnTwoHostsInTurn",
                                  "OnTwoHostsThroughMpi", "InPlaceByTable", "OnTwoHostsByTable"};
Communicator* worlds[kNumWays] = {};

int most_ranks_in_exchange = 0;  // of the communicators of MPI_Alltoallv since it was set to 0

// For every call and size the first way that is not the rule's.
CollectiveTable other_ways(GroupShape shape) {
  CollectiveTable table;
  for (OpKind kind : kTabledCalls)
    for (DType dtype : {DType::kF32, DType::kBF16})
      for (size_t bytes = 1; bytes <= size_t{1} << 26; bytes *= 2) {
        const CollectiveCase which{kind, dtype, shape, bytes};
        for (CollectiveWay way : ways_of(which))
          if (way != CollectiveTable().choose(which)) {
            table.set(which, way);
            break;
          }
      }
  return table;
}

class MpiRanks : public ::testing::TestWithParam<std::tuple<testing::CommCase, Way>> {};

TEST_P(MpiRanks, Case) {
  const auto& [test, way] = GetParam();
  Communicator& world = *worlds[way];
  if (world.rank() == 0) std::cout << test.name << ' ' << kNames[way] << '\n' << std::flush;
  test.run(world);
  // Who fails, fails for all: else ranks would part ways, and the next case fail for no reason of its own.
  world.agree(HasFailure() ? "its checks failed" : "");
}

INSTANTIATE_TEST_SUITE_P(Suite, MpiRanks,
                         ::testing::Combine(::testing::ValuesIn(testing::comm_cases()),
                                            ::testing::Values(kInPlace, kThroughWindows, kThroughMpi, kOnTwoHosts,
                                                              kOnTwoHostsInTurn, kOnTwoHostsThroughMpi,
                                                              kInPlaceByTable, kOnTwoHostsByTable)),
                         [](const auto& info) {
                           return text(std::get<0>(info.param).name, kNames[std::get<1>(info.param)]);
                         });

// Whatever way sums take: shared memory, MPI, or both. What decides is which ranks share a host.
TEST(MpiBackends, GiveTheSameBitsInEveryRun) {
  constexpr int64_t n = 123457;
  for (const auto& ways : {std::vector<Way>{kInPlace, kThroughWindows, kThroughMpi, kInPlaceByTable},
                           std::vector<Way>{kOnTwoHosts, kOnTwoHostsThroughMpi, kOnTwoHostsByTable}}) {
    const int rank = worlds[0]->rank();
    const Tensor first = testing::values(DType::kF32, n, 8, rank);
    worlds[ways[0]]->all_reduce(first);
    for (int run = 0; run < 3; ++run)
      for (Way way : ways) {
        const Tensor again = testing::values(DType::kF32, n, 8, rank);
        worlds[way]->all_reduce(again);
        testing::expect_same_bits(again, first, text(kNames[way], ", run ", run));
      }
  }
}

// Who exchanges parts of a sum by MPI: all ranks, or only one of each host.
TEST(MpiBackends, ATableDecidesWhetherHostsExchangeInOneStep) {
  Communicator& world = *worlds[kOnTwoHosts];
  if (world.size() < 3) GTEST_SKIP() << "one rank a host: there is one way";
  const auto split = world.split(0, world.rank(), "all");
  EXPECT_EQ(split->shape().hosts, 2);
  EXPECT_EQ(split->shape().ranks, (world.size() + 1) / 2);
  const Tensor t = testing::values(DType::kF32, 70000, 12, world.rank());
  const auto most_ranks = [&](Communicator& comm) {
    most_ranks_in_exchange = 0;
    comm.all_reduce(t);
    return most_ranks_in_exchange;
  };
  EXPECT_LE(most_ranks(*split), 2);
  CollectiveTable table;
  table.set({OpKind::kAllReduce, DType::kF32, split->shape(), 1 << 18}, CollectiveWay::kMpi);
  split->use(table);
  EXPECT_EQ(most_ranks(*split), world.size());
  EXPECT_EQ(most_ranks(*split->split(0, world.rank(), "the same")), world.size());
  split->use(CollectiveTable());
  EXPECT_LE(most_ranks(*split), 2);
  EXPECT_EQ(most_ranks(*worlds[kOnTwoHostsByTable]), world.size());
}

// Measured ways are ways that there are, each with its time, and the table takes none that is slower than the rule's.
TEST(MpiBackends, TimingsHoldEveryWayOfEveryCall) {
  for (Way way : {kInPlace, kOnTwoHosts}) {
    Communicator& world = *worlds[way];
    const std::vector<CollectiveTiming> timings = time_collectives(world, world, 1 << 21, 1);
    CollectiveTable table;
    choose_fastest(timings, table);
    if (world.size() == 1 || (way == kOnTwoHosts && world.shape().ranks == 1)) {
      EXPECT_TRUE(timings.empty());
      continue;
    }
    EXPECT_GT(timings.size(), 30u);
    EXPECT_EQ(table.num_entries(), timings.size());
    for (const CollectiveTiming& timing : timings) {
      double rule = 0, chosen = 0;
      for (const auto& [one, seconds] : timing.ways) {
        EXPECT_GT(seconds, 0);
        if (one == CollectiveTable().choose(timing.which)) rule = seconds;
        if (one == table.choose(timing.which)) chosen = seconds;
      }
      EXPECT_GE(timing.ways.size(), 2u);
      EXPECT_GT(chosen, 0);
      EXPECT_LE(chosen, rule);
    }
  }
}

// Whoever waits first carries a message out: the sender, or the receiver; with tensors that the other cannot reach, too.
TEST(MpiBackends, MessagesAreCarriedOutByWhoeverWaits) {
  Communicator& world = *worlds[kInPlace];
  const int n = world.size(), next = (world.rank() + 1) % n, previous = (world.rank() + n - 1) % n;
  uint64_t seed = 60;
  const auto tensor = [](int64_t count, bool outside) {
    if (!outside) return zeros({count}, DType::kF32);
    auto memory = std::make_shared<std::vector<float>>(count);
    return Tensor::from_memory(memory->data(), {count}, DType::kF32, Device::cpu(), memory);
  };
  for (bool sender_waits : {true, false})
    for (bool outside_sends : {false, true})
      for (bool outside_receives : {false, true})
        for (int64_t count : {0, 128, 129, 70001}) {
          const Tensor out = tensor(count, outside_sends), in = tensor(count, outside_receives);
          copy(testing::values(DType::kF32, count, ++seed, world.rank()), out);
          Work recv, send;
          if (world.rank() % 2) recv = world.recv(in, previous, 2);
          send = world.send(out, next, 2);
          if (world.rank() % 2 == 0) recv = world.recv(in, previous, 2);
          world.barrier();  // now both sides of all have been called
          (sender_waits ? send : recv).wait();
          world.barrier();
          (sender_waits ? recv : send).wait();
          testing::expect_same_bits(in, testing::values(DType::kF32, count, seed, previous),
                                    text(count, " elements, sender waits: ", sender_waits));
        }
}

// A tensor that the neighbours cannot reach makes all ranks take the way through MPI, to the same bits.
TEST(MpiBackends, TensorsOutsideTheArenaCrossHostsToo) {
  constexpr int64_t n = 30011;
  Communicator& world = *worlds[kOnTwoHosts];
  const int ranks = world.size();
  for (int outside = 0; outside < ranks; ++outside) {
    const auto tensor = [&](int64_t count, uint64_t seed) {
      const Tensor t = testing::values(DType::kF32, count, seed, world.rank());
      if (world.rank() != outside) return t;
      auto memory = std::make_shared<std::vector<float>>(count);
      const Tensor other = Tensor::from_memory(memory->data(), {count}, DType::kF32, Device::cpu(), memory);
      copy(t, other);
      return other;
    };
    const Tensor expected = testing::values(DType::kF32, n * ranks, 3, world.rank());
    worlds[kOnTwoHostsThroughMpi]->all_reduce(expected);
    const Tensor t = tensor(n * ranks, 3), in = tensor(n * ranks, 3), part = tensor(n, 4), all = tensor(n * ranks, 5);
    world.all_reduce(t);
    testing::expect_same_bits(t, expected, "all_reduce");
    world.reduce_scatter(in, part);
    world.all_gather(part, all);
    testing::expect_same_bits(all, expected, "reduce_scatter, all_gather");
    world.broadcast(in, outside);
    testing::expect_same_bits(in, testing::values(DType::kF32, n * ranks, 3, outside), "broadcast");
  }
}

// A rank's tensor that others cannot reach makes all go through windows, whatever the others' tensors are.
TEST(MpiBackends, TensorsOutsideTheArenaAreReducedToo) {
  constexpr int64_t n = 100003;
  Communicator& world = *worlds[kInPlace];
  for (int outside = 0; outside < world.size(); ++outside) {
    auto memory = std::make_shared<std::vector<float>>(n);
    const Tensor t = world.rank() == outside
                         ? Tensor::from_memory(memory->data(), {n}, DType::kF32, Device::cpu(), memory)
                         : empty({n}, DType::kF32);
    for (int64_t i = 0; i < n; ++i) t.data<float>()[i] = static_cast<float>(i % 1000 + world.rank());
    world.all_reduce(t);
    const int ranks = world.size();
    for (int64_t i = 0; i < n; ++i)
      ASSERT_EQ(t.data<float>()[i], static_cast<float>(i % 1000 * ranks + ranks * (ranks - 1) / 2)) << i;
  }
}

}  // namespace
}  // namespace trireme

// Called by the library in place of MPI's own, which MPI keeps as PMPI_Alltoallv.
extern "C" int MPI_Alltoallv(const void* in, const int* in_counts, const int* in_offsets, MPI_Datatype in_type, void* out,
                             const int* out_counts, const int* out_offsets, MPI_Datatype out_type, MPI_Comm comm) {
  int size = 0;
  MPI_Comm_size(comm, &size);
  trireme::most_ranks_in_exchange = std::max(trireme::most_ranks_in_exchange, size);
  return PMPI_Alltoallv(in, in_counts, in_offsets, in_type, out, out_counts, out_offsets, out_type, comm);
}

int main(int argc, char** argv) {
  using namespace trireme;
  ::testing::InitGoogleTest(&argc, argv);
  MpiEnvironment mpi;
  try {
    auto first = make_mpi_world();
    const int rank = first->rank(), size = first->size();
    const std::string half = rank < (size + 1) / 2 ? "left" : "right", in_turn = rank % 2 ? "odd" : "even";
    const std::unique_ptr<Communicator> owners[] = {std::move(first),
                                                    make_mpi_world({.in_place = false}),
                                                    make_mpi_world({.share_memory = false}),
                                                    make_mpi_world({.host = half}),
                                                    make_mpi_world({.host = in_turn}),
                                                    make_mpi_world({.share_memory = false, .host = half}),
                                                    make_mpi_world(),
                                                    make_mpi_world({.host = half})};
    for (Way way : {kInPlaceByTable, kOnTwoHostsByTable}) owners[way]->use(other_ways(owners[way]->shape()));
    std::vector<std::unique_ptr<Watchdog>> watchdogs;
    for (int way = 0; way < kNumWays; ++way) {
      worlds[way] = owners[way].get();
      watchdogs.push_back(std::make_unique<Watchdog>(WatchdogOptions{.timeout_s = 60}, *owners[way]));
    }
    if (worlds[0]->rank() != 0)  // rank 0 tells of progress; failures of the others go to stderr with their message
      delete ::testing::UnitTest::GetInstance()->listeners().Release(
          ::testing::UnitTest::GetInstance()->listeners().default_result_printer());
    class Failures : public ::testing::EmptyTestEventListener {
      void OnTestPartResult(const ::testing::TestPartResult& result) override {
        if (result.failed())
          std::cerr << text("rank ", worlds[0]->rank(), ": ", result.file_name() ? result.file_name() : "", ":",
                            result.line_number(), ": ", result.message(), "\n");
      }
    };
    ::testing::UnitTest::GetInstance()->listeners().Append(new Failures);
    return RUN_ALL_TESTS();
  } catch (const std::exception& e) {
    abort_job(1, e.what());
  }
}
