#include "launch/text_output.h"

#include <algorithm>

namespace trireme {

std::string TextOutput::take(const std::string& more, bool last) {
  if (stopped_) return "";
  held_ += more;
  size_t first = std::string::npos;
  for (const std::string& stop : stops_) first = std::min(first, held_.find(stop));
  if (first != std::string::npos) {
    stopped_ = true;
    return held_.substr(0, first);
  }
  // The longest end of what is held that a stop string begins with stays.
  size_t keep = 0;
  if (!last)
    for (const std::string& stop : stops_)
      for (size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n)
        if (held_.compare(held_.size() - n, n, stop, 0, n) == 0) keep = n;
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return out;
}

}  // namespace trireme
