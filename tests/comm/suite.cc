#include "suite.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <thread>

#include "comm/host_layout.h"
#include "comm/job_link.h"
#include "comm_values.h"
#include "tensor/cuda/devices.h"

namespace trireme::testing {
namespace {

constexpr DType kAllTypes[] = {DType::kF32, DType::kBF16, DType::kF16, DType::kI32, DType::kI64, DType::kU8};
constexpr DType kSummable[] = {DType::kF32, DType::kBF16, DType::kF16, DType::kI32, DType::kI64};
// Nothing, one, fewer than ranks, primes, around one cache line, more than a packet of the MPI backend.
constexpr int64_t kSizes[] = {0, 1, 2, 7, 17, 257, 4099, 70001};
// Several slices or chunks of every backend, and not a multiple of any.
constexpr int64_t kManySlices = 1300021;
int64_t many_slices(const Communicator& world) { return world.size() > 4 ? 600011 : kManySlices; }
int64_t many_slices_of_a_part(const Communicator& world) { return world.size() > 4 ? 80021 : 300007; }

Tensor input(DType dtype, int64_t n, uint64_t seed, int rank) { return there(values(dtype, n, seed, rank)); }
Tensor blank(const Shape& shape, DType dtype) { return zeros(shape, dtype, test_device()); }
template <class T>
T at(const Tensor& t, int64_t i) {
  return here(t).data<T>()[i];
}

// The ranks of the world on each host: the order of sums.
std::vector<std::vector<int>> hosts_of(const Communicator& world) {
  const auto job = world.job_link();
  std::vector<std::string> names;
  for (int r = 0; r < world.size(); ++r) names.push_back(job ? job->host(r) : "here");
  return HostLayout::of(names, 0).hosts;
}

void all_reduce_matches_the_ordered_sum(Communicator& world) {
  uint64_t seed = 1;
  for (DType dtype : kSummable)
    for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax, ReduceOp::kMin})
      for (int64_t n : kSizes) {
        const Tensor t = input(dtype, n, ++seed, world.rank());
        world.all_reduce(t, op);
        expect_same_bits(t, reduced(dtype, n, seed, hosts_of(world), op), text("all_reduce ", t));
      }
}

void all_reduce_of_many_slices(Communicator& world) {
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    const int64_t n = many_slices(world);
    const Tensor t = input(dtype, n, 77, world.rank());
    world.all_reduce(t);
    expect_same_bits(t, reduced(dtype, n, 77, hosts_of(world), ReduceOp::kSum), text("all_reduce ", t));
  }
}

// The ordered sum above is itself within rounding of the exact one: a sum in bf16 steps would not be.
void sums_are_close_to_exact(Communicator& world) {
  constexpr int64_t n = 997;
  for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const Tensor t = input(dtype, n, 5, world.rank());
    world.all_reduce(t);
    const Tensor result = here(t);
    std::vector<Tensor> inputs;
    for (int r = 0; r < world.size(); ++r) inputs.push_back(values(dtype, n, 5, r));
    for (int64_t i = 0; i < n; ++i) {
      double exact = 0, magnitude = 0;
      for (const Tensor& input : inputs) {
        exact += as_double(input, i);
        magnitude += std::abs(as_double(input, i));
      }
      const double unit = dtype == DType::kF32 ? 0 : dtype == DType::kBF16 ? 0x1p-8 : 0x1p-10;
      EXPECT_NEAR(as_double(result, i), exact, world.size() * 0x1p-23 * magnitude + unit * std::abs(exact) + 1e-7)
          << dtype << " element " << i;
    }
  }
}

void max_and_min_keep_nan(Communicator& world) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (ReduceOp op : {ReduceOp::kMax, ReduceOp::kMin})
    for (int bad = 0; bad < world.size(); ++bad) {
      const Tensor t = there(tensor_of<float>({world.rank() == bad ? nan : 1.0f + world.rank(), 2.0f}, {2}));
      world.all_reduce(t, op);
      EXPECT_TRUE(std::isnan(at<float>(t, 0))) << "NaN of rank " << bad;
      EXPECT_EQ(at<float>(t, 1), 2.0f);
    }
}

void all_gather_places_each_rank(Communicator& world) {
  uint64_t seed = 100;
  auto check_one = [&](DType dtype, int64_t n) {
    ++seed;
    Tensor expected = empty({world.size(), n}, dtype);
    for (int r = 0; r < world.size(); ++r)
      copy(values(dtype, n, seed, r), expected.rows(r, r + 1).reshape({n}));
    const Tensor in = input(dtype, n, seed, world.rank()), out = blank({world.size(), n}, dtype);
    world.all_gather(in, out);
    expect_same_bits(out, expected, text("all_gather ", in));
    // In place: the input is the rank's own part of the output.
    const Tensor own = blank({world.size(), n}, dtype);
    copy(in, own.rows(world.rank(), world.rank() + 1).reshape({n}));
    world.all_gather(own.rows(world.rank(), world.rank() + 1), own);
    expect_same_bits(own, expected, text("all_gather in place ", in));
  };
  for (DType dtype : kAllTypes)
    for (int64_t n : kSizes) check_one(dtype, n);
  check_one(DType::kF32, world.size() > 4 ? 270001 : kManySlices);
}

void reduce_scatter_gives_each_rank_its_part(Communicator& world) {
  uint64_t seed = 200;
  auto check_one = [&](DType dtype, int64_t n, ReduceOp = ReduceOp::kSum) {
    ++seed;
    const int64_t total = n * world.size();
    const Tensor all = reduced(dtype, total, seed, hosts_of(world), ReduceOp::kSum).reshape({world.size(), n});
    const Tensor expected = all.rows(world.rank(), world.rank() + 1).reshape({n});
    const Tensor in = input(dtype, total, seed, world.rank()), out = blank({n}, dtype);
    world.reduce_scatter(in, out);
    expect_same_bits(out, expected, text("reduce_scatter ", in));
    expect_same_bits(in, values(dtype, total, seed, world.rank()), "the input of reduce_scatter");
    const Tensor own = in.reshape({world.size(), n}).rows(world.rank(), world.rank() + 1).reshape({n});
    world.reduce_scatter(in, own);
    expect_same_bits(own, expected, text("reduce_scatter in place ", in));
  };
  for (DType dtype : kSummable)
    for (int64_t n : kSizes)
      if (n < 70000) check_one(dtype, n);
  check_one(DType::kF32, many_slices_of_a_part(world));
}

void broadcast_from_every_root(Communicator& world) {
  uint64_t seed = 300;
  for (DType dtype : kAllTypes)
    for (int64_t n : {int64_t{0}, int64_t{1}, int64_t{19}, int64_t{1031}, int64_t{70001}})
      for (int root = 0; root < world.size(); ++root) {
        const Tensor t = input(dtype, n, ++seed, world.rank());
        world.broadcast(t, root);
        expect_same_bits(t, values(dtype, n, seed, root), text("broadcast ", t, " from ", root));
      }
  const Tensor large = input(DType::kF32, many_slices(world), seed, world.rank());
  world.broadcast(large, world.size() - 1);
  expect_same_bits(large, values(DType::kF32, many_slices(world), seed, world.size() - 1), "broadcast of many slices");
}

void all_to_all_transposes(Communicator& world) {
  uint64_t seed = 400;
  auto check_one = [&](DType dtype, int64_t n) {
    ++seed;
    const Tensor in = input(dtype, n * world.size(), seed, world.rank()).reshape({world.size(), n});
    const Tensor out = blank({world.size(), n}, dtype), expected = empty({world.size(), n}, dtype);
    for (int r = 0; r < world.size(); ++r)
      copy(values(dtype, n * world.size(), seed, r).reshape({world.size(), n}).rows(world.rank(), world.rank() + 1),
           expected.rows(r, r + 1));
    world.all_to_all(in, out);
    expect_same_bits(out, expected, text("all_to_all ", in));
  };
  for (DType dtype : kAllTypes)
    for (int64_t n : {int64_t{0}, int64_t{1}, int64_t{13}, int64_t{1009}}) check_one(dtype, n);
  check_one(DType::kF32, many_slices_of_a_part(world));
}

void asynchronous_calls_run_in_order(Communicator& world) {
  // Each call uses what the one before it wrote.
  const int n = world.size();
  const Tensor t = input(DType::kI64, 5003, 9, world.rank()), gathered = blank({n, 5003}, DType::kI64);
  const Tensor scattered = blank({5003}, DType::kI64);
  Work first = world.all_reduce_async(t);
  Work second = world.all_gather_async(t, gathered);
  Work third = world.reduce_scatter_async(gathered, scattered);
  Work fourth = world.all_reduce_async(scattered, ReduceOp::kMax);
  fourth.wait();
  EXPECT_TRUE(third.done() && second.done() && first.done()) << "the last ended before the others";
  first.wait();
  third.wait();
  second.wait();
  EXPECT_TRUE(fourth.done());
  const Tensor sum = reduced(DType::kI64, 5003, 9, hosts_of(world), ReduceOp::kSum), result = here(scattered);
  for (int64_t i = 0; i < 5003; ++i)
    ASSERT_EQ(result.data<int64_t>()[i],
              static_cast<int64_t>(static_cast<uint64_t>(sum.data<int64_t>()[i]) * static_cast<uint64_t>(n)));

  // A blocking call comes after asynchronous ones before it, even if their Work was dropped.
  const Tensor u = input(DType::kI32, 301, 10, world.rank());
  { const Work dropped = world.all_reduce_async(u); }
  Work kept = world.all_reduce_async(u, ReduceOp::kMax);
  world.all_reduce(u, ReduceOp::kMin);
  EXPECT_TRUE(kept.done());
  expect_same_bits(u, reduced(DType::kI32, 301, 10, hosts_of(world), ReduceOp::kSum), "sum, then max and min of equal values");
}

void split_forms_rows_and_columns(Communicator& world) {
  int columns = 1;
  for (int c = 2; c * c <= world.size(); ++c)
    if (world.size() % c == 0) columns = c;
  const int row = world.rank() / columns, column = world.rank() % columns, rows = world.size() / columns;
  const auto across = world.split(row, column, "tp");
  const auto down = world.split(column, -row, "dp");  // the key reverses the order
  EXPECT_EQ(across->size(), columns);
  EXPECT_EQ(across->rank(), column);
  EXPECT_EQ(across->name(), "tp");
  EXPECT_EQ(down->size(), rows);
  EXPECT_EQ(down->rank(), rows - 1 - row);
  const Tensor a = there(tensor_of<int64_t>({world.rank(), 1}, {2})), b = there(tensor_of<int64_t>({world.rank(), 1}, {2}));
  across->all_reduce(a);
  down->all_reduce(b);
  int64_t row_sum = 0, column_sum = 0;
  for (int c = 0; c < columns; ++c) row_sum += row * columns + c;
  for (int r = 0; r < rows; ++r) column_sum += r * columns + column;
  EXPECT_EQ(at<int64_t>(a, 0), row_sum);
  EXPECT_EQ(at<int64_t>(a, 1), columns);
  EXPECT_EQ(at<int64_t>(b, 0), column_sum);
  EXPECT_EQ(at<int64_t>(b, 1), rows);
  const auto alone = across->split(column, 0, "alone");  // a split of a split
  EXPECT_EQ(alone->size(), 1);
  const Tensor mine = input(DType::kF32, 11, 3, world.rank()), same = values(DType::kF32, 11, 3, world.rank());
  alone->all_reduce(mine);
  expect_same_bits(mine, same, "all_reduce of a rank alone");
  const Tensor out = blank({11}, DType::kF32);
  alone->all_gather(mine, out);
  expect_same_bits(out, same, "all_gather of a rank alone");
}

void two_communicators_from_two_threads(Communicator& world) {
  const auto left = world.split(0, world.rank(), "left"), right = world.split(0, -world.rank(), "right");
  constexpr int kRounds = 40;
  auto rounds = [&](Communicator& comm, int64_t n, uint64_t seed) {
    for (int i = 0; i < kRounds; ++i) {
      const Tensor t = input(DType::kI64, n, seed + i, world.rank());
      comm.all_reduce(t);
      expect_same_bits(t, reduced(DType::kI64, n, seed + i, hosts_of(world), ReduceOp::kSum), text("round ", i));
    }
  };
  std::thread other([&, device = test_device()] {
    if (device.kind == DeviceKind::kCuda) cuda::select_device(device.index);
    rounds(*left, 2003, 1000);
  });
  rounds(*right, 61, 2000);
  other.join();
}

void messages_match_by_peer_and_tag(Communicator& world) {
  constexpr int kTags = 9;
  const int n = world.size(), me = world.rank();
  auto seed_of = [](int from, int to, int tag) { return static_cast<uint64_t>(7000 + (from * 16 + to) * 100 + tag); };
  auto count_of = [](int tag) { return static_cast<int64_t>(tag == 4 ? 200003 : tag * 37); };  // tag 0 is empty
  std::vector<Work> sends;
  std::vector<Tensor> sent;
  for (int to = 0; to < n; ++to)
    for (int tag = 0; tag < kTags; ++tag) {
      sent.push_back(input(DType::kF32, count_of(tag), seed_of(me, to, tag), 0));
      sends.push_back(world.send(sent.back(), to, tag));
    }
  // Received in another order than sent, some posted before others are waited for.
  std::vector<Work> recvs;
  std::vector<Tensor> received;
  std::vector<std::pair<int, int>> places;
  for (int tag = kTags - 1; tag >= 0; --tag)
    for (int i = 0; i < n; ++i) {
      const int from = (me + i) % n;
      received.push_back(blank({count_of(tag)}, DType::kF32));
      places.emplace_back(from, tag);
      recvs.push_back(world.recv(received.back(), from, tag));
    }
  for (size_t i = recvs.size(); i-- > 0;) {
    recvs[i].wait();
    const auto [from, tag] = places[i];
    expect_same_bits(received[i], values(DType::kF32, count_of(tag), seed_of(from, me, tag), 0),
                     text("from ", from, " tag ", tag));
  }
  for (Work& w : sends) w.wait();
  // The same peer and tag: in order.
  const int next = (me + 1) % n, previous = (me + n - 1) % n;
  const Tensor a = there(tensor_of<int32_t>({me * 2}, {1})), b = there(tensor_of<int32_t>({me * 2 + 1}, {1}));
  const Tensor c = blank({1}, DType::kI32), d = blank({1}, DType::kI32);
  Work s1 = world.send(a, next, 3), s2 = world.send(b, next, 3);
  Work r1 = world.recv(c, previous, 3), r2 = world.recv(d, previous, 3);
  for (Work* w : {&r2, &r1, &s1, &s2}) w->wait();
  EXPECT_EQ(at<int32_t>(c, 0), previous * 2);
  EXPECT_EQ(at<int32_t>(d, 0), previous * 2 + 1);
}

void messages_of_other_size_are_refused(Communicator& world) {
  const int n = world.size(), next = (world.rank() + 1) % n, previous = (world.rank() + n - 1) % n;
  for (int64_t wanted : {3, 5}) {  // the message is longer, and shorter
    const Tensor out = blank({4}, DType::kF32), in = blank({wanted}, DType::kF32);
    Work s = world.send(out, next, 1), r = world.recv(in, previous, 1);
    const std::string message = message_of<CommError>([&] { r.wait(); });
    EXPECT_NE(message.find(text("recv f32[", wanted, "]", out.device().kind == DeviceKind::kCpu ? "" : " on cuda", " from rank ", previous, ", tag 1")), std::string::npos) << message;
    try {
      s.wait();
    } catch (const CommError&) {  // where the sender can know
    }
  }
  world.barrier();
}

void collectives_and_messages_interleave(Communicator& world) {
  const int n = world.size(), next = (world.rank() + 1) % n, previous = (world.rank() + n - 1) % n;
  for (int i = 0; i < 20; ++i) {
    const Tensor payload = input(DType::kBF16, 3001, 50 + i, world.rank()), got = blank({3001}, DType::kBF16);
    const Tensor t = input(DType::kF32, 4001, 90 + i, world.rank());
    Work reduce = world.all_reduce_async(t);
    Work r = world.recv(got, previous, i), s = world.send(payload, next, i);
    r.wait();
    s.wait();
    reduce.wait();
    expect_same_bits(got, values(DType::kBF16, 3001, 50 + i, previous), "message");
    expect_same_bits(t, reduced(DType::kF32, 4001, 90 + i, hosts_of(world), ReduceOp::kSum), "all_reduce");
  }
}

void differing_calls_throw_on_all_ranks(Communicator& world) {
  if (world.size() == 1) return;
  const int last = world.size() - 1;
  const bool odd = world.rank() == last;
  auto expect_both_named = [&](const std::string& first, const std::string& other, auto call) {
    const std::string message = message_of<CommError>(call);
    EXPECT_NE(message.find(text("rank 0 called ", first, ", rank ", last, " called ", other)), std::string::npos)
        << message;
    EXPECT_NE(message.find(text("comm[world ", world.rank(), "/", world.size())), std::string::npos) << message;
  };
  const Tensor t8 = blank({8}, DType::kF32), t9 = blank({9}, DType::kF32), h8 = blank({8}, DType::kBF16);
  const Tensor large = blank({kManySlices}, DType::kF32);
  const std::string on = t8.device().kind == DeviceKind::kCpu ? "" : " on cuda";
  expect_both_named("all_reduce f32[8]" + on, "all_reduce f32[9]" + on, [&] { world.all_reduce(odd ? t9 : t8); });
  expect_both_named("all_reduce f32[8]" + on, "all_reduce bf16[8]" + on, [&] { world.all_reduce(odd ? h8 : t8); });
  expect_both_named("all_reduce f32[8]" + on, "all_reduce (max) f32[8]" + on,
                    [&] { world.all_reduce(t8, odd ? ReduceOp::kMax : ReduceOp::kSum); });
  expect_both_named("broadcast f32[8]" + on + " from rank 0", "broadcast f32[8]" + on + " from rank 1",
                    [&] { world.broadcast(t8, odd ? 1 : 0); });
  expect_both_named("barrier", "all_reduce f32[8]" + on, [&] {
    if (odd)
      world.all_reduce(t8);
    else
      world.barrier();
  });
  expect_both_named("all_reduce f32[1300021]" + on, "all_reduce f32[8]" + on, [&] { world.all_reduce(odd ? t8 : large); });
  expect_both_named("split", "barrier", [&] {
    if (odd)
      world.barrier();
    else
      world.split(0, 0, "x");
  });
  // An asynchronous one tells at wait(), or at the next call if no one waits.
  Work work = world.all_reduce_async(odd ? t9 : t8);
  EXPECT_NE(message_of<CommError>([&] { work.wait(); }).find("ranks disagree"), std::string::npos);
  { const Work dropped = world.all_reduce_async(odd ? t9 : t8); }
  EXPECT_NE(message_of<CommError>([&] { world.barrier(); }).find("ranks disagree"), std::string::npos);
  // All ranks threw, so they are still in step.
  const Tensor after = input(DType::kF32, 70001, 12, world.rank());
  world.all_reduce(after);
  expect_same_bits(after, reduced(DType::kF32, 70001, 12, hosts_of(world), ReduceOp::kSum), "after the errors");
}

void bad_arguments_throw_before_anyone_waits(Communicator& world) {
  const int n = world.size();
  const Tensor t = blank({4}, DType::kF32), bytes = blank({4}, DType::kU8);
  EXPECT_NE(message_of<ShapeError>([&] { world.all_gather(t, blank({4 * n + 1}, DType::kF32)); })
                .find(text("into f32[", 4 * n + 1, "]; it must have ", n, " times the elements")),
            std::string::npos);
  EXPECT_NE(message_of<ShapeError>([&] { world.reduce_scatter(blank({4 * n + 1}, DType::kF32), t); })
                .find(text("the input must have ", n, " times")),
            std::string::npos);
  EXPECT_THROW(world.all_gather(t, blank({4 * n}, DType::kBF16)), ShapeError);
  EXPECT_NE(message_of<ShapeError>([&] { world.all_reduce(bytes); }).find("u8 has no sums"), std::string::npos);
  EXPECT_THROW(world.all_reduce(Tensor()), ShapeError);
  EXPECT_THROW(world.broadcast(t, n), ShapeError);
  EXPECT_THROW(world.send(t, -1, 0), ShapeError);
  EXPECT_THROW(world.recv(t, n, 0), ShapeError);
  EXPECT_THROW(world.send(t, 0, -1), ShapeError);
  EXPECT_THROW(world.split(-1, 0, "x"), CommError);
  const Tensor both = blank({2 * n}, DType::kF32);
  EXPECT_THROW(world.all_to_all(both, both), ShapeError);
  world.barrier();
}

void strings_of_any_length(Communicator& world) {
  const int n = world.size();
  auto of = [](int r) { return std::string(static_cast<size_t>(r) * 1000, static_cast<char>('a' + r)) + '\0' + "ü"; };
  const auto all = world.all_gather_strings(of(world.rank()));
  ASSERT_EQ(all.size(), static_cast<size_t>(n));
  for (int r = 0; r < n; ++r) EXPECT_EQ(all[r], of(r));
  for (const std::string& s : world.all_gather_strings("")) EXPECT_EQ(s, "");
  const auto one = world.all_gather_strings(world.rank() == n - 1 ? "only me" : "");
  EXPECT_EQ(one[n - 1], "only me");
  for (int root = 0; root < n; ++root) EXPECT_EQ(world.broadcast_string(of(world.rank()), root), of(root));
  EXPECT_EQ(world.broadcast_string(world.rank() == 0 ? "" : "not this", 0), "");
}

void agreement_throws_on_all_ranks_or_none(Communicator& world) {
  world.agree("");
  const int last = world.size() - 1;
  EXPECT_EQ(message_of<CommError>([&] { world.agree(world.rank() == last ? "disk full" : ""); }),
            text("rank ", last, ": disk full"));
  EXPECT_EQ(message_of<CommError>([&] { world.agree(text("error of ", world.rank())); }), "rank 0: error of 0");
  world.agree("");
}

void statistics_count_calls_and_bytes(Communicator& world) {
  const CommStats before = world.stats();
  world.all_reduce(blank({100}, DType::kBF16));
  world.all_reduce_async(blank({10}, DType::kF32)).wait();
  const CommStats after = world.stats();
  EXPECT_EQ(after.num_calls - before.num_calls, 2u);
  EXPECT_EQ(after.num_bytes - before.num_bytes, 240u);
  EXPECT_GE(after.blocked_s, before.blocked_s);
}

}  // namespace

const std::vector<CommCase>& comm_cases() {
  static const std::vector<CommCase> cases = {
      {"AllReduceMatchesTheOrderedSum", all_reduce_matches_the_ordered_sum},
      {"AllReduceOfManySlices", all_reduce_of_many_slices},
      {"SumsAreCloseToExact", sums_are_close_to_exact},
      {"MaxAndMinKeepNan", max_and_min_keep_nan},
      {"AllGatherPlacesEachRank", all_gather_places_each_rank},
      {"ReduceScatterGivesEachRankItsPart", reduce_scatter_gives_each_rank_its_part},
      {"BroadcastFromEveryRoot", broadcast_from_every_root},
      {"AllToAllTransposes", all_to_all_transposes},
      {"AsynchronousCallsRunInOrder", asynchronous_calls_run_in_order},
      {"SplitFormsRowsAndColumns", split_forms_rows_and_columns},
      {"TwoCommunicatorsFromTwoThreads", two_communicators_from_two_threads},
      {"MessagesMatchByPeerAndTag", messages_match_by_peer_and_tag},
      {"MessagesOfOtherSizeAreRefused", messages_of_other_size_are_refused},
      {"CollectivesAndMessagesInterleave", collectives_and_messages_interleave},
      {"DifferingCallsThrowOnAllRanks", differing_calls_throw_on_all_ranks},
      {"BadArgumentsThrowBeforeAnyoneWaits", bad_arguments_throw_before_anyone_waits},
      {"StringsOfAnyLength", strings_of_any_length},
      {"AgreementThrowsOnAllRanksOrNone", agreement_throws_on_all_ranks_or_none},
      {"StatisticsCountCallsAndBytes", statistics_count_calls_and_bytes},
  };
  return cases;
}

}  // namespace trireme::testing
