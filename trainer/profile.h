// Where the time of a few steps goes: every op, collective and pipeline action of every rank, with its time, on one
// clock. A Profiler belongs to one rank and watches while it is attached; detached it costs a test of a pointer an op.
// At the end the ranks together write, into the run's folder:
//   profile/timeline.json  Chrome trace events (a JSON array), for chrome://tracing and ui.perfetto.dev: a process a
//                          rank, with a thread each for phases of the step, the pipeline's actions, compute, and
//                          communication that compute waits for and that beside it
//   profile/table.txt      time by op and by collective beside what it takes at least at the measured rates
//   profile/step.svg       the last of the steps, two rows a rank; of the first kMaxDrawnRanks ranks
//   profile/pipeline.svg   with several stages: its actions on the first data and tensor rank, in the form of
//                          parallel/timeline.h
#pragma once

#include <filesystem>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "parallel/executor.h"
#include "parallel/mesh.h"
#include "trainer/profile_report.h"

namespace trireme {

// How a rank's clock differs from rank 0's, by an exchange of pings (as NTP does: Mills 1991, doi:10.1109/26.103043):
// rank 0's time = this rank's + offset, within half the round trip. 0 on rank 0. Collective.
struct ClockOffset {
  double offset_s = 0, round_trip_s = 0;
};
ClockOffset measure_clock_offset(Communicator& world);

class Profiler final : public OpObserver, public CommObserver {
 public:
  using Clock = std::chrono::steady_clock;

  // Measures clocks and rates: gemm_rate is this rank's, FLOP/s. Collective over the mesh's world. `mesh` must outlive
  // the time between attach() and detach(); its world outlives this. On a CUDA device each op is waited for, so that its
  // time is its own; profiled steps then take longer by those waits.
  Profiler(const Mesh& mesh, double gemm_rate, Device device = Device::cpu());

  ~Profiler() override;

  // From here to detach() the communicators of the mesh tell this object of their calls; ops do where it is handed to
  // TrainStep::set_profiler. No asynchronous call may be under way.
  void attach();
  void detach();
  bool attached() const { return attached_; }

  // Of this rank's clock, while attached.
  void begin_step(int64_t step) { step_ = step; }
  void phase(const char* name, Clock::time_point begin, Clock::time_point end, double num_bytes = 0);
  void pipeline(const ScheduleShape& shape, const PipelineReport& report);

  void forward_begins() override;
  void forward_done(const Done& done) override;
  void backward_begins() override;
  void backward_done(const Done& done) override;
  void done(const CommEvent& event) override;

  const std::vector<ProfileEvent>& events() const { return events_; }

  // Gathers all ranks' events on rank 0, which writes the files and gets the table; "" elsewhere. Collective. A file that
  // cannot be written throws FileError on rank 0 alone, after the exchange.
  std::string write(const std::filesystem::path& run_dir);

 private:
  struct Open {
    Clock::time_point begin;
    double inside = 0;  // seconds of ops and collectives inside
  };
  double seconds(Clock::time_point t) const;
  void add_compute(const Done& done, const char* suffix, Clock::time_point begin, double inside);
  void add(ProfileEvent event);
  double floor_of(const CommEvent& event) const;

  const Mesh& mesh_;
  Communicator& world_;
  Device device_;
  bool attached_ = false;
  ClockOffset offset_;
  Clock::time_point origin_;
  double gemm_rate_, copy_rate_;
  std::vector<std::pair<std::string, GroupRates>> groups_;  // by name, of the mesh's axes with several ranks
  std::thread::id compute_thread_;
  int64_t step_ = 0;
  Clock::time_point last_;  // where the next forward op begins
  double inside_ = 0;       // seconds of collectives since then
  std::vector<Open> open_;  // backwards under way, outermost first
  ScheduleShape shape_{1, 1, 1};
  std::mutex mutex_;        // of events_: collectives end on several threads
  std::vector<ProfileEvent> events_;
};

}  // namespace trireme
