#include "tasks/batch_source.h"

#include <algorithm>

namespace trireme {

void BatchBuilder::add_segment(const std::vector<int32_t>& ids, const std::vector<int32_t>& types,
                               int64_t sample, int64_t place) {
  TRIREME_ASSERT(types.empty() || types.size() == ids.size());
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  types_.insert(types_.end(), types.begin(), types.end());
  types_.resize(ids_.size(), 0);
  typed_ = typed_ || !types.empty();
  for (size_t i = 0; i < ids.size(); ++i) {
    positions_.push_back(static_cast<int32_t>(i));
    keys_.push_back(sample * (int64_t{1} << 20) + place + static_cast<int64_t>(i));
  }
  starts_.push_back(static_cast<int32_t>(ids_.size()));
  longest_ = std::max<int64_t>(longest_, static_cast<int64_t>(ids.size()));
}

void BatchBuilder::pad_to_multiple(int64_t n, int32_t id) {
  const int64_t missing = (n - tokens() % n) % n;
  if (missing > 0) add_segment(std::vector<int32_t>(static_cast<size_t>(missing), id), {}, 0);
}

TokenBatch BatchBuilder::build() const {
  TokenBatch b;
  const int64_t n = tokens();
  b.ids = tensor_of<int32_t>(ids_, {n});
  b.positions = tensor_of<int32_t>(positions_, {n});
  b.row_keys = tensor_of<int64_t>(keys_, {n});
  if (typed_) b.types = tensor_of<int32_t>(types_, {n});
  b.segments = {tensor_of<int32_t>(starts_, {static_cast<int64_t>(starts_.size())}), longest_};
  return b;
}

}  // namespace trireme
