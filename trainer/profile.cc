#include "trainer/profile.h"

#include <algorithm>

#include "base/axis.h"
#include "base/files.h"
#include "parallel/timeline.h"
#include "tensor/cuda/devices.h"
#include "tensor/memory_rate.h"
#include "tensor/threads.h"

namespace trireme {
namespace {

constexpr int kPings = 20;
constexpr size_t kCopyBytes = size_t{64} << 20;

double seconds_between(Profiler::Clock::time_point a, Profiler::Clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}
double clock_now() { return std::chrono::duration<double>(Profiler::Clock::now().time_since_epoch()).count(); }

}  // namespace

ClockOffset measure_clock_offset(Communicator& world) {
  ClockOffset mine;
  const Tensor word = empty({2}, DType::kF32);  // a double, as bytes
  const auto put = [&](double value) { *static_cast<double*>(word.raw()) = value; };
  const auto get = [&] { return *static_cast<const double*>(word.raw()); };
  for (int r = 1; r < world.size(); ++r) {
    if (world.rank() != 0 && world.rank() != r) continue;
    ClockOffset best{0, 1e30};
    for (int i = 0; i < kPings; ++i) {
      if (world.rank() == 0) {
        world.recv(word, r, 0).wait();
        put(clock_now());
        world.send(word, r, 0).wait();
        continue;
      }
      const double sent = clock_now();
      put(sent);
      world.send(word, 0, 0).wait();
      world.recv(word, 0, 0).wait();
      const double received = clock_now(), round_trip = received - sent;
      if (round_trip < best.round_trip_s) best = {get() - (sent + received) / 2, round_trip};
    }
    if (world.rank() == r) mine = best;
  }
  return mine;
}

Profiler::Profiler(const Mesh& mesh, double gemm_rate, Device device)
    : mesh_(mesh), world_(mesh.world()), device_(device), gemm_rate_(gemm_rate) {
  compute_thread_ = std::this_thread::get_id();
  mesh.world().barrier();
  copy_rate_ = measure_memory_rate(device, num_threads(), kCopyBytes).copy_bytes_per_s;
  for (Communicator* group : {&mesh.tp(), &mesh.dp(), &mesh.pp()})
    if (group->size() > 1) groups_.emplace_back(group->name(), measure_group_rates(*group, device));
  offset_ = measure_clock_offset(mesh.world());
  // One origin for all: rank 0's.
  const Tensor origin = tensor_of<int64_t>({Clock::now().time_since_epoch().count()}, {1});
  mesh.world().broadcast(origin, 0);
  origin_ = Clock::time_point(Clock::duration(origin.data<int64_t>()[0]));
}

double Profiler::seconds(Clock::time_point t) const { return seconds_between(origin_, t) + offset_.offset_s; }

Profiler::~Profiler() {
  // By an error: the mesh may be gone.
  if (attached_) world_.observe(nullptr);
}

void Profiler::attach() {
  attached_ = true;
  for (Communicator* group : {&mesh_.world(), &mesh_.tp(), &mesh_.dp(), &mesh_.pp(), mesh_.pipeline_ends()})
    if (group) group->observe(this);
}

void Profiler::detach() {
  attached_ = false;
  for (Communicator* group : {&mesh_.world(), &mesh_.tp(), &mesh_.dp(), &mesh_.pp(), mesh_.pipeline_ends()})
    if (group) group->observe(nullptr);
}

void Profiler::add(ProfileEvent event) {
  event.step = step_;
  std::lock_guard lock(mutex_);
  events_.push_back(std::move(event));
}

void Profiler::phase(const char* name, Clock::time_point begin, Clock::time_point end, double num_bytes) {
  ProfileEvent e{Track::kPhase, name, seconds(begin), seconds(end)};
  e.own = e.end - e.begin;
  e.floor = num_bytes / copy_rate_;
  add(std::move(e));
}

void Profiler::pipeline(const ScheduleShape& shape, const PipelineReport& report) {
  shape_ = shape;
  const double start = seconds(report.begin);
  double end = 0;
  const auto bubble = [&](double until) {
    if (shape.stages == 1 || until <= end) return;
    ProfileEvent e{Track::kPipeline, "bubble", start + end, start + until};
    e.own = until - end;
    e.stage = -1;
    add(std::move(e));
  };
  for (const TimedAction& t : report.actions) {
    bubble(t.start);
    end = t.end;
    ProfileEvent e{Track::kPipeline, describe(shape, t.action), start + t.start, start + t.end};
    e.own = t.end - t.start;
    e.action = t.action;
    e.stage = t.stage;
    add(std::move(e));
  }
  bubble(report.total_s);
}

void Profiler::forward_begins() {
  last_ = Clock::now();
  inside_ = 0;
}

void Profiler::add_compute(const Done& done, const char* suffix, Clock::time_point begin, double inside) {
  if (device_.kind != DeviceKind::kCpu) cuda::synchronize();
  const Clock::time_point end = Clock::now();
  ProfileEvent e{Track::kCompute, done.op + std::string(suffix), seconds(begin), seconds(end)};
  e.own = std::max(0.0, e.end - e.begin - inside);
  e.floor = std::max(done.flops / gemm_rate_, done.bytes / copy_rate_);
  // An op inside another's backward (recomputed) is part of that one's time.
  if (!open_.empty()) open_.back().inside += e.end - e.begin;
  last_ = end;
  inside_ = 0;
  add(std::move(e));
}

void Profiler::forward_done(const Done& done) {
  // Inside a backward (recomputed), collectives were counted as inside that one as well.
  if (!open_.empty()) open_.back().inside -= inside_;
  add_compute(done, "", last_, inside_);
}

void Profiler::backward_begins() { open_.push_back({Clock::now()}); }

void Profiler::backward_done(const Done& done) {
  const Open open = open_.back();
  open_.pop_back();
  add_compute(done, " backward", open.begin, open.inside);
}

double Profiler::floor_of(const CommEvent& event) const {
  if (event.how == CommEvent::How::kWait) return 0;
  for (const auto& [name, rates] : groups_)
    for (CollectiveKind kind : kCollectiveKinds)
      if (name == event.group && event.call == name_of(kind))
        return collective_seconds(kind, rates.of(kind), event.ranks,
                                  static_cast<double>(event.num_bytes) *
                                      (kind == CollectiveKind::kAllGather ? event.ranks : 1));
  return 0;
}

void Profiler::done(const CommEvent& event) {
  const bool beside = event.how == CommEvent::How::kBeside, waits = event.how == CommEvent::How::kWait;
  ProfileEvent e{beside ? Track::kBeside : Track::kCommunication,
                 text(waits ? "wait for " : "", event.call, ' ', event.group), seconds(event.begin),
                 seconds(event.end)};
  e.own = e.end - e.begin;
  e.floor = floor_of(event);
  e.num_bytes = waits && event.call != "send" && event.call != "recv" ? 0 : static_cast<double>(event.num_bytes);
  if (std::this_thread::get_id() == compute_thread_) {
    inside_ += e.own;
    if (!open_.empty()) open_.back().inside += e.own;
  }
  add(std::move(e));
}

std::string Profiler::write(const std::filesystem::path& run_dir) {
  Communicator& world = world_;
  TRIREME_ASSERT(!attached_);
  const auto bytes_of = [](const std::string& s) {
    return tensor_of<uint8_t>({reinterpret_cast<const uint8_t*>(s.data()), s.size()}, {static_cast<int64_t>(s.size())});
  };
  RankEvents ranks;
  if (world.rank() == 0) {
    ranks.push_back(events_);
    for (int r = 1; r < world.size(); ++r) {
      const Tensor size = empty({1}, DType::kI64);
      world.recv(size, r, 0).wait();
      const Tensor packed = empty({*size.data<int64_t>()}, DType::kU8);
      world.recv(packed, r, 1).wait();
      ranks.push_back(unpack_events({static_cast<const char*>(packed.raw()), packed.num_bytes()}));
    }
  } else {
    const std::string packed = pack_events(events_);
    world.send(tensor_of<int64_t>({static_cast<int64_t>(packed.size())}, {1}), 0, 0).wait();
    world.send(bytes_of(packed), 0, 1).wait();
  }
  if (world.rank() != 0) return "";
  const std::filesystem::path dir = run_dir / "profile";
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  if (error) throw_file_error(dir, "make the profile's folder", error.value());
  std::string rates = text("rates of rank 0: products ", compact_number(gemm_rate_ / 1e9), " GFLOP/s, copy ",
                           compact_number(copy_rate_ / 1e9), " GB/s");
  for (const auto& [name, g] : groups_) {
    const CallRate& call = g.of(CollectiveKind::kAllReduce);
    rates += text(", ", name, " all_reduce ", compact_number(call.latency_s * 1e6), " us and ",
                  compact_number(call.bytes_per_s / 1e9), " GB/s");
  }
  const std::string table = profile_table(ranks, rates);
  write_file_atomically(dir / "table.txt", table);
  write_file_atomically(dir / "timeline.json", trace_json(ranks));
  write_file_atomically(dir / "step.svg", step_svg(ranks, step_));
  if (shape_.stages > 1) {
    std::vector<int> stage_ranks;
    for (int s = 0; s < shape_.stages; ++s) stage_ranks.push_back(s * world.size() / shape_.stages);
    write_file_atomically(dir / "pipeline.svg",
                          timeline_svg(shape_, measured_pipeline(shape_, ranks, stage_ranks, step_),
                                       {text("Step ", step_, ", measured"), "milliseconds", 0}));
  }
  return table;
}

}  // namespace trireme
