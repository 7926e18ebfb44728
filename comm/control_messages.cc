// Byte strings among the ranks of a communicator, by its collectives.
#include <algorithm>
#include <cstring>

#include "comm/communicator.h"

namespace trireme {

std::vector<std::string> Communicator::all_gather_strings(const std::string& mine) {
  const Tensor length = tensor_of<int64_t>({static_cast<int64_t>(mine.size())}, {1});
  const Tensor lengths = empty({size()}, DType::kI64);
  all_gather(length, lengths);
  int64_t longest = 0;
  for (int64_t n : lengths.span<int64_t>()) longest = std::max(longest, n);
  std::vector<std::string> strings(size());
  if (longest == 0) return strings;
  const Tensor padded = zeros({longest}, DType::kU8), all = empty({size(), longest}, DType::kU8);
  std::memcpy(padded.raw(), mine.data(), mine.size());
  all_gather(padded, all);
  for (int r = 0; r < size(); ++r)
    strings[r].assign(static_cast<const char*>(all.raw()) + r * longest, lengths.data<int64_t>()[r]);
  return strings;
}

std::string Communicator::broadcast_string(const std::string& mine, int root) {
  const Tensor length = tensor_of<int64_t>({static_cast<int64_t>(mine.size())}, {1});
  broadcast(length, root);
  if (rank() == root) {
    const Tensor bytes = tensor_of<uint8_t>({reinterpret_cast<const uint8_t*>(mine.data()), mine.size()},
                                            {static_cast<int64_t>(mine.size())});
    if (!mine.empty()) broadcast(bytes, root);
    return mine;
  }
  std::string received(static_cast<size_t>(*length.data<int64_t>()), '\0');
  if (received.empty()) return received;
  const Tensor bytes = empty({static_cast<int64_t>(received.size())}, DType::kU8);
  broadcast(bytes, root);
  std::memcpy(received.data(), bytes.raw(), received.size());
  return received;
}

void Communicator::agree(const std::string& error) {
  const std::vector<std::string> errors = all_gather_strings(error);
  for (int r = 0; r < size(); ++r)
    check<CommError>(errors[r].empty(), "rank ", r, ": ", errors[r]);
}

}  // namespace trireme
