// The parameters of a LayerNorm or RMSNorm: replicated over the tensor axis. Under sequence parallelism each rank
// normalises its own rows, so the gradients are partial and are summed over the axis.
#pragma once

#include <string>

#include "model/hf_config.h"
#include "parallel/linear.h"
#include "tensor/ops/layer_norm.h"

namespace trireme {

inline Parameter* norm_parameter(const LayerContext& context, const std::string& name, int64_t dim, bool ones) {
  Parameter p;
  p.shape = {dim};
  p.pieces.push_back({name, {dim}, {{0}, {dim}}, false, 0});
  p.init.kind = ones ? Init::Kind::kOnes : Init::Kind::kZeros;
  p.tp_replicated = true;
  p.tp_partial_grad = context.split_rows();
  return context.parameters.add(std::move(p));
}

struct LayerNormParams {
  Parameter *weight, *bias;
  float eps;
  LayerNormParams(const LayerContext& context, const std::string& name, const ModelConfig& config)
      : weight(norm_parameter(context, name + ".weight", config.hidden_size, true)),
        bias(norm_parameter(context, name + ".bias", config.hidden_size, false)),
        eps(static_cast<float>(config.norm_eps)) {}
  Tensor operator()(const Tensor& x) const { return layer_norm(x, weight->value, bias->value, eps); }
};

}  // namespace trireme
