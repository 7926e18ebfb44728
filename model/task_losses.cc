#include "model/task_losses.h"

#include <cmath>

#include "tensor/on_device.h"
#include "tensor/ops/linear.h"

namespace trireme {
namespace {

Tensor as_f32(const Tensor& t) {
  const Tensor here = to_device(t.detach(), Device::cpu());
  return here.dtype() == DType::kF32 ? here : cast(here, DType::kF32);
}

// The loss `sum` of x, whose gradient is dx: f32, on the CPU, scaled.
TokenLoss known_loss(const char* op, const Tensor& x, const Tensor& dx, double sum) {
  TokenLoss result;
  result.totals.add(sum);
  result.loss = zeros({1}, DType::kF32);
  if (Tape* tape = x.tape()) {
    const Tensor typed = x.dtype() == DType::kF32 ? dx : cast(dx, x.dtype());
    tape->record(op, {x}, {&result.loss}, [dx = to_device(typed, x.device())](Grads& grads) {
      TRIREME_ASSERT(grads.out().data<float>()[0] == 1.0f);
      grads.add(0, dx);
    }, {.backward_moves = false});
  }
  return result;
}

void check_labels_are(const char* op, const Tensor& labels, DType dtype, const Shape& shape) {
  check_on_host(op, "labels", labels);
  check(labels.dtype() == dtype && labels.shape() == shape, op, ": labels are ", labels, "; want ", dtype, shape);
}

// Log of the softmax of n logits, each `stride` after the one before.
std::vector<double> log_softmax(const float* x, int64_t n, int64_t stride = 1) {
  double maximum = -INFINITY, sum = 0;
  for (int64_t i = 0; i < n; ++i) maximum = std::max(maximum, static_cast<double>(x[i * stride]));
  for (int64_t i = 0; i < n; ++i) sum += std::exp(x[i * stride] - maximum);
  std::vector<double> y(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) y[i] = x[i * stride] - maximum - std::log(sum);
  return y;
}

double weight_of(const LossOptions& options, int64_t label) {
  return options.class_weights.empty() ? 1 : static_cast<double>(options.class_weights[label]);
}

// Adds the gradient of scale * loss to dx, and returns the loss.
double class_row(const std::vector<double>& log_p, int64_t label, const LossOptions& options, double scale, float* dx) {
  const int64_t classes = static_cast<int64_t>(log_p.size());
  const double e = options.label_smoothing;
  double loss = 0, total = 0;  // of the weights that log p[c] has
  std::vector<double> target(static_cast<size_t>(classes));
  for (int64_t c = 0; c < classes; ++c) {
    target[c] = (c == label ? (1 - e) * weight_of(options, label) : 0) + e / static_cast<double>(classes) * weight_of(options, c);
    total += target[c];
    if (target[c] > 0) loss -= target[c] * log_p[c];
  }
  for (int64_t c = 0; c < classes; ++c) dx[c] += static_cast<float>(scale * (total * std::exp(log_p[c]) - target[c]));
  return loss;
}

// weight * (KL(p || q) + KL(q || p)) = weight * the sum of (p - q) (log p - log q).
double divergence(const std::vector<double>& log_p, const std::vector<double>& log_q, double weight, double scale, float* dp,
                  float* dq) {
  const size_t classes = log_p.size();
  double kl_pq = 0, kl_qp = 0;
  for (size_t c = 0; c < classes; ++c) {
    kl_pq += std::exp(log_p[c]) * (log_p[c] - log_q[c]);
    kl_qp += std::exp(log_q[c]) * (log_q[c] - log_p[c]);
  }
  for (size_t c = 0; c < classes; ++c) {
    const double p = std::exp(log_p[c]), q = std::exp(log_q[c]), d = log_p[c] - log_q[c];
    dp[c] += static_cast<float>(scale * weight * (p * (d - kl_pq) + p - q));
    dq[c] += static_cast<float>(scale * weight * (q * (-d - kl_qp) + q - p));
  }
  return weight * (kl_pq + kl_qp);
}

TokenLoss classes(const char* op, const Tensor& logits, const Tensor& labels, const LossOptions& options, double scale,
                  bool pairs) {
  check(logits.rank() == 2, op, ": logits are ", logits, "; want [rows, classes]");
  const int64_t rows = logits.dim(0), count = logits.dim(1);
  check_labels_are(op, labels, DType::kI32, {rows});
  check(options.class_weights.empty() || static_cast<int64_t>(options.class_weights.size()) == count, op, ": ",
        options.class_weights.size(), " class weights for ", count, " classes");
  const Tensor x = as_f32(logits), dx = zeros(x.shape(), DType::kF32);
  const int32_t* label = labels.data<int32_t>();
  std::vector<std::vector<double>> log_p(static_cast<size_t>(rows));
  double sum = 0;
  for (int64_t r = 0; r < rows; ++r) {
    if (label[r] == kIgnoreLabel) continue;
    check<Error>(label[r] >= 0 && label[r] < count, op, ": label ", label[r], " of row ", r, " is none of ", count, " classes");
    log_p[r] = log_softmax(x.data<float>() + r * count, count);
    sum += class_row(log_p[r], label[r], options, scale, dx.data<float>() + r * count);
  }
  for (int64_t r = 0; pairs && r < rows; r += 2) {
    const int32_t partner = r + 1 < rows ? label[r + 1] : kIgnoreLabel;
    check<Error>(partner == label[r], op, ": rows ", r, " and ", r + 1, " have labels ", label[r], " and ", partner,
                 "; they are to be two passes of one sample");
    if (label[r] != kIgnoreLabel)
      sum += divergence(log_p[r], log_p[r + 1], options.r_drop * weight_of(options, label[r]), scale,
                        dx.data<float>() + r * count, dx.data<float>() + (r + 1) * count);
  }
  return known_loss(op, logits, dx, sum);
}

// A loss of each entry by itself: fn(logit, label) gives it and its slope.
template <class F>
TokenLoss entries(const char* op, const Tensor& logits, const Tensor& labels, double scale, F fn) {
  check_labels_are(op, labels, DType::kF32, logits.shape());
  const Tensor x = as_f32(logits), dx = zeros(x.shape(), DType::kF32);
  double sum = 0;
  for (int64_t i = 0; i < x.numel(); ++i) {
    const float label = labels.data<float>()[i];
    if (std::isnan(label)) continue;
    check<Error>(std::isfinite(label), op, ": a label is infinite");
    const auto [loss, slope] = fn(static_cast<double>(x.data<float>()[i]), static_cast<double>(label));
    sum += loss;
    dx.data<float>()[i] = static_cast<float>(scale * slope);
  }
  return known_loss(op, logits, dx, sum);
}

// The lengths of rows.
std::vector<double> lengths_of(const Tensor& x) {
  std::vector<double> lengths(static_cast<size_t>(x.dim(0)));
  for (int64_t r = 0; r < x.dim(0); ++r) {
    double squares = 0;
    for (int64_t d = 0; d < x.dim(1); ++d) {
      const double v = x.data<float>()[r * x.dim(1) + d];
      squares += v * v;
    }
    lengths[r] = squares > 0 ? std::sqrt(squares) : 1;
  }
  return lengths;
}

Tensor divided(const Tensor& x, const std::vector<double>& lengths) {
  Tensor y = empty(x.shape(), DType::kF32);
  for (int64_t i = 0; i < x.numel(); ++i)
    y.data<float>()[i] = static_cast<float>(x.data<float>()[i] / lengths[i / x.dim(1)]);
  return y;
}

}  // namespace

void check_loss_options(const ModelConfig& config, const LossOptions& options) {
  const HeadSpec& head = config.head;
  const bool sequence = head.kind == HeadKind::kSequenceClassification && head.problem == ProblemType::kSingleLabel;
  const bool one_class = sequence || head.kind == HeadKind::kTokenClassification;
  check<ConfigError>(options.label_smoothing >= 0 && options.label_smoothing < 1, "label_smoothing=", options.label_smoothing,
                     "; it must be in [0, 1)");
  check<ConfigError>(options.label_smoothing == 0 || one_class, "label_smoothing=", options.label_smoothing,
                     ": this model's head does not choose one class of several; leave it 0");
  check<ConfigError>(options.class_weights.empty() || one_class,
                     "class_weights: this model's head does not choose one class of several; leave them out");
  check<ConfigError>(options.class_weights.empty() || options.class_weights.size() == head.labels.size(), "class_weights: ",
                     options.class_weights.size(), " of them for ", head.labels.size(), " labels");
  for (const float weight : options.class_weights)
    check<ConfigError>(std::isfinite(weight) && weight >= 0, "class_weights: ", weight, " is no finite number from 0 on");
  check<ConfigError>(options.r_drop >= 0 && std::isfinite(options.r_drop), "r_drop=", options.r_drop,
                     "; it must be 0 or above");
  check<ConfigError>(options.r_drop == 0 || sequence, "r_drop=", options.r_drop,
                     ": this model's head does not choose one class for a sequence; leave it 0");
  check<ConfigError>(options.temperature > 0 && std::isfinite(options.temperature), "temperature=", options.temperature,
                     "; it must be above 0");
}

TokenLoss class_loss(const Tensor& logits, const Tensor& labels, const LossOptions& options, double scale) {
  return classes("class_loss", logits, labels, options, scale, false);
}

TokenLoss r_drop_loss(const Tensor& logits, const Tensor& labels, const LossOptions& options, double scale) {
  return classes("r_drop_loss", logits, labels, options, scale, true);
}

TokenLoss binary_loss(const Tensor& logits, const Tensor& labels, double scale) {
  return entries("binary_loss", logits, labels, scale, [](double x, double y) {
    check<Error>(y >= 0 && y <= 1, "binary_loss: label ", y, " is not in [0, 1]");
    // log(1 + e^x) - y x, whose exponential cannot overflow.
    const double loss = std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))) - y * x;
    return std::pair(loss, 1 / (1 + std::exp(-x)) - y);
  });
}

TokenLoss squared_loss(const Tensor& logits, const Tensor& labels, double scale) {
  return entries("squared_loss", logits, labels, scale,
                 [](double x, double y) { return std::pair((x - y) * (x - y), 2 * (x - y)); });
}

TokenLoss span_loss(const Tensor& logits, const Tensor& labels, const Segments& segments, double scale) {
  check(logits.rank() == 2 && logits.dim(1) == 2, "span_loss: logits are ", logits, "; want [tokens, 2]");
  check_segments("span_loss", segments, logits.dim(0));
  check_labels_are("span_loss", labels, DType::kI32, {segments.count(), 2});
  const Tensor x = as_f32(logits), dx = zeros(x.shape(), DType::kF32);
  const auto start = segments.starts.span<int32_t>();
  double sum = 0;
  for (int64_t s = 0; s < segments.count(); ++s)
    for (int end = 0; end < 2; ++end) {
      const int32_t label = labels.data<int32_t>()[2 * s + end], length = start[s + 1] - start[s];
      if (label == kIgnoreLabel) continue;
      check<Error>(label >= 0 && label < length, "span_loss: an answer ", end ? "ends" : "begins", " at token ", label,
                   " of segment ", s, ", which has ", length);
      const auto log_p = log_softmax(x.data<float>() + 2 * start[s] + end, length, 2);
      sum -= log_p[label];
      for (int32_t t = 0; t < length; ++t)
        dx.data<float>()[2 * (start[s] + t) + end] = static_cast<float>(scale * (std::exp(log_p[t]) - (t == label)));
    }
  return known_loss("span_loss", logits, dx, sum);
}

Tensor unit_rows(const Tensor& x) {
  const Tensor from = as_f32(x);
  return divided(from, lengths_of(from));
}

TokenLoss pair_loss(const Tensor& vectors, const Tensor& labels, double temperature, double scale) {
  const int64_t rows = vectors.dim(0), dim = vectors.dim(1);
  check_labels_are("pair_loss", labels, DType::kI32, {rows});
  const int32_t* label = labels.data<int32_t>();
  std::vector<int64_t> anchors, candidates, place(static_cast<size_t>(rows));  // place: among the candidates
  for (int64_t r = 0; r < rows; ++r) {
    place[r] = static_cast<int64_t>(candidates.size());
    if (label[r] == kNoText) continue;
    (label[r] == kIgnoreLabel ? candidates : anchors).push_back(r);
  }
  for (const int64_t r : anchors)
    check<Error>(label[r] >= 0 && label[r] < rows && label[label[r]] == kIgnoreLabel, "pair_loss: text ", r, " of ", rows,
                 " has text ", label[r], " as its partner; that must be another one of the batch, without a partner of its own");

  const Tensor x = as_f32(vectors);
  const std::vector<double> lengths = lengths_of(x);
  const Tensor unit = divided(x, lengths);
  const auto chosen = [&](const std::vector<int64_t>& of) {
    Tensor y = empty({static_cast<int64_t>(of.size()), dim}, DType::kF32);
    for (size_t i = 0; i < of.size(); ++i)
      copy(unit.rows(of[i], of[i] + 1), y.rows(static_cast<int64_t>(i), static_cast<int64_t>(i) + 1));
    return y;
  };
  const Tensor a = chosen(anchors), b = chosen(candidates);
  Tensor scores = linear_forward(a, b, {});  // cosines; then the gradient of the loss by them
  double sum = 0;
  const int64_t n = b.dim(0);
  for (size_t i = 0; i < anchors.size(); ++i) {
    float* row = scores.data<float>() + static_cast<int64_t>(i) * n;
    for (int64_t j = 0; j < n; ++j) row[j] = static_cast<float>(row[j] / temperature);
    const auto log_p = log_softmax(row, n);
    const int64_t right = place[label[anchors[i]]];
    sum -= log_p[right];
    for (int64_t j = 0; j < n; ++j)
      row[j] = static_cast<float>(scale / temperature * (std::exp(log_p[j]) - (j == right)));
  }

  const Tensor dx = zeros(x.shape(), DType::kF32);
  if (!anchors.empty()) {
    GradSlot db{empty(b.shape(), DType::kF32)};
    linear_backward_weight(scores, a, db);
    const Tensor da = linear_backward_input(scores, b);
    // Through the division by the length: what changes the direction alone.
    const auto back = [&](const std::vector<int64_t>& of, const Tensor& du) {
      for (size_t i = 0; i < of.size(); ++i) {
        const float *g = du.data<float>() + static_cast<int64_t>(i) * dim, *u = unit.data<float>() + of[i] * dim;
        double along = 0;
        for (int64_t d = 0; d < dim; ++d) along += static_cast<double>(g[d]) * u[d];
        for (int64_t d = 0; d < dim; ++d)
          dx.data<float>()[of[i] * dim + d] = static_cast<float>((g[d] - along * u[d]) / lengths[of[i]]);
      }
    };
    back(anchors, da);
    back(candidates, db.grad);
  }
  return known_loss("pair_loss", vectors, dx, sum);
}

TokenLoss sum_of(const TokenLoss& a, const TokenLoss& b, double share) {
  TokenLoss result;
  result.totals = a.totals;
  result.totals.add(share * b.totals.get().loss);
  result.loss = zeros({1}, DType::kF32);
  if (Tape* tape = recording({a.loss, b.loss}))
    tape->record("sum_of_losses", {a.loss, b.loss}, {&result.loss}, [](Grads& grads) {
      grads.add(0, grads.out());
      grads.add(1, grads.out());
    }, {.forward_moves = false, .backward_moves = false});
  return result;
}

}  // namespace trireme
