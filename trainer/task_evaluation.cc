#include "trainer/task_evaluation.h"

#include <cstring>

namespace trireme {
namespace {

// Micro-batches whose outputs are held before they are sent: what a forward leaves of each is small.
constexpr int64_t kRound = 256;

struct Header {
  int64_t sample, values, columns;
};

void append(std::string& bytes, const void* data, size_t size) {
  bytes.append(static_cast<const char*>(data), size);
}

// The outputs of a micro-batch, cut into those of its samples.
void pack(const Tensor& out, HeadKind head, const TaskData& data, const std::vector<int64_t>& samples,
          std::string& bytes) {
  const bool by_token = head == HeadKind::kTokenClassification || head == HeadKind::kQuestionAnswering;
  const int64_t columns = out.dim(1);
  const float* row = out.data<float>();
  for (const int64_t n : samples) {
    const TaskSample& s = data.samples[static_cast<size_t>(n)];
    int64_t rows = 0;
    for (const TaskSegment& segment : s.segments)
      rows += by_token ? static_cast<int64_t>(segment.ids.size()) : 1;
    TRIREME_ASSERT(row + rows * columns <= out.data<float>() + out.numel());
    const Header header{n, rows * columns, columns};
    append(bytes, &header, sizeof header);
    append(bytes, row, static_cast<size_t>(header.values) * sizeof(float));
    row += header.values;
  }
}

void unpack(const std::string& bytes, std::vector<TaskOutput>& outputs) {
  for (size_t at = 0; at < bytes.size();) {
    Header header;
    std::memcpy(&header, bytes.data() + at, sizeof header);
    at += sizeof header;
    TaskOutput& out = outputs.at(static_cast<size_t>(header.sample));
    out.columns = header.columns;
    out.values.resize(static_cast<size_t>(header.values));
    std::memcpy(out.values.data(), bytes.data() + at, out.values.size() * sizeof(float));
    at += out.values.size() * sizeof(float);
  }
}

}  // namespace

TaskEvaluation evaluate_task(Communicator& world, const ShardedModel& model, const TaskData& data,
                             const BatchSource& source, const BatchPlan& plan, int64_t count,
                             const LossOptions& loss, const ActivityFn& activity) {
  TaskEvaluation result;
  result.outputs.resize(static_cast<size_t>(count));
  const Mesh& mesh = model.mesh();
  const bool mine = mesh.tp().rank() == 0 && mesh.pp().rank() == mesh.pp().size() - 1;
  double sum = 0, weight = 0;
  const int64_t round = kRound * plan.micro_batch * plan.data_ranks;
  for (int64_t first = 0; first < count; first += round) {
    const int64_t end = std::min(count, first + round);
    std::vector<Tensor> outputs;
    const EvaluationResult r =
        evaluate(model, load_evaluation(source, plan, first, end), loss, &outputs, activity);
    sum += r.loss * r.weight;
    weight += r.weight;
    std::string bytes;
    if (mine) {
      const auto samples = evaluation_samples(plan, first, end);
      TRIREME_ASSERT(outputs.size() == samples.size());
      for (size_t i = 0; i < samples.size(); ++i)
        pack(outputs[i], model.config().head.kind, data, samples[i], bytes);
    }
    if (activity) activity("gathering outputs");
    for (const std::string& part : world.all_gather_strings(bytes)) unpack(part, result.outputs);
  }
  result.loss = weight > 0 ? sum / weight : 0;
  return result;
}

}  // namespace trireme
