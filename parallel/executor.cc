#include "parallel/executor.h"

#include <chrono>
#include <map>
#include <memory>
#include <optional>

#include "tensor/cuda/devices.h"

namespace trireme {
namespace {

using Clock = std::chrono::steady_clock;

struct Live {
  std::unique_ptr<Tape> tape;
  Tensor input, output;
};

struct Arriving {
  Tensor tensor;
  Work work;
};

class Execution {
 public:
  Execution(const Schedule& schedule, Communicator& pp, StageWork& work)
      : schedule_(schedule), shape_(schedule.shape), stage_(pp.rank()), pp_(pp), work_(work),
        backwards_done_(shape_.chunks, 0), start_(Clock::now()) {
    report_.begin = start_;
  }

  PipelineReport run() {
    const StageActions& actions = schedule_.stages[stage_];
    for (size_t i = 0; i < actions.size(); ++i) {
      // The next message is asked for while this action computes.
      expect(actions[i]);
      if (i + 1 < actions.size()) expect(actions[i + 1]);
      Tensor arrived = take(actions[i]);
      const double begin = now();
      Tensor result = perform(actions[i], arrived);
      const double end = now();
      report_.actions.push_back({stage_, actions[i], begin, end});
      report_.busy_s += end - begin;
      hand_on(actions[i], result);
      std::erase_if(leaving_, [](Arriving& m) { return m.work.done(); });
    }
    if (work_.device().kind != DeviceKind::kCpu) {  // what the actions have only enqueued
      const double enqueued = now();
      cuda::synchronize();
      report_.busy_s += now() - enqueued;
    }
    const double begin = now();
    for (Arriving& m : leaving_) m.work.wait();
    report_.total_s = now();
    report_.wait_s += report_.total_s - begin;
    return std::move(report_);
  }

 private:
  using Key = std::pair<int, int>;  // micro-batch, chunk

  double now() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

  void expect(const Action& action) {
    const std::optional<Message> m = needs(shape_, stage_, action);
    if (!m || m->local() || arriving_.contains(m->tag)) return;
    Arriving a{empty(work_.activation_shape(m->micro_batch), work_.activation_dtype(), work_.device()), {}};
    a.work = pp_.recv(a.tensor, m->from_stage, m->tag);
    arriving_.emplace(m->tag, std::move(a));
  }

  Tensor take(const Action& action) {
    const std::optional<Message> m = needs(shape_, stage_, action);
    if (!m) return {};
    auto& from = m->local() ? local_ : arriving_;
    auto it = from.find(m->tag);
    TRIREME_ASSERT(it != from.end());
    work_.activity("waiting for " + describe(shape_, action));
    const double begin = now();
    it->second.work.wait();
    report_.wait_s += now() - begin;
    Tensor t = it->second.tensor;
    from.erase(it);
    return t;
  }

  Tensor perform(const Action& action, const Tensor& arrived) {
    work_.activity(describe(shape_, action));
    const Key key{action.micro_batch, action.chunk};
    if (action.pass == Pass::kForward) {
      if (schedule_.forward_only) return work_.forward(action.micro_batch, action.chunk, arrived, nullptr);
      Live live{std::make_unique<Tape>(), {}, {}};
      if (OpObserver* observer = work_.observer()) {
        live.tape->observe(observer);
        observer->forward_begins();
      }
      if (arrived.defined()) live.input = live.tape->variable(arrived);
      live.output = work_.forward(action.micro_batch, action.chunk, live.input, live.tape.get());
      Tensor result = live.output.detach();
      live_.emplace(key, std::move(live));
      report_.peak_live = std::max(report_.peak_live, static_cast<int>(live_.size()));
      return result;
    }
    auto it = live_.find(key);
    TRIREME_ASSERT(it != live_.end());
    Live& live = it->second;
    // A split backward counts as done with its weight part; parts of one chunk come in micro-batch order.
    const bool last = backwards_done_[action.chunk] == shape_.micro_batches - 1;
    Tensor dx;
    if (action.pass != Pass::kBackwardWeight) {
      work_.backward_begins(action.micro_batch, action.chunk, last);
      Tensor dy = arrived;
      if (!dy.defined()) dy = tensor_of<float>({1.0f}, {1});
      if (action.pass == Pass::kBackward)
        live.tape->backward(live.output, dy);
      else
        live.tape->backward_inputs(live.output, dy);
      if (live.input.defined()) dx = live.tape->take_grad(live.input);
      live.output = Tensor();
    } else {
      work_.backward_begins(action.micro_batch, action.chunk, last);
      live.tape->backward_weights();
    }
    if (action.pass != Pass::kBackwardInput) {
      ++backwards_done_[action.chunk];
      work_.backward_done(action.micro_batch, action.chunk, last);
      live_.erase(it);
    }
    return dx;
  }

  void hand_on(const Action& action, const Tensor& result) {
    const std::optional<Message> m = produces(shape_, stage_, action);
    if (!m) return;
    check(result.shape() == work_.activation_shape(m->micro_batch), "pipeline: stage ", stage_, " produced ", result,
          " for ", describe(shape_, action), ", its neighbour expects ", work_.activation_shape(m->micro_batch));
    if (m->local())
      local_.emplace(m->tag, Arriving{result, {}});
    else
      leaving_.push_back({result, pp_.send(result, m->to_stage, m->tag)});
  }

  const Schedule& schedule_;
  const ScheduleShape shape_;
  const int stage_;
  Communicator& pp_;
  StageWork& work_;
  std::map<Key, Live> live_;
  std::map<int, Arriving> arriving_, local_;  // by tag
  std::vector<Arriving> leaving_;
  std::vector<int> backwards_done_;
  PipelineReport report_;
  const Clock::time_point start_;
};

}  // namespace

PipelineReport run_schedule(const Schedule& schedule, Communicator& pp, StageWork& work) {
  TRIREME_ASSERT(schedule.shape.stages == pp.size());
  return Execution(schedule, pp, work).run();
}

}  // namespace trireme
