// What the pickle of a torch.save file says: which tensors there are, and which parts of which storages.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/pickle.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace trireme {

struct TorchStorage {
  std::string key;
  int64_t numel = 0;
  uint64_t num_bytes = 0;
};

// A view of a storage. Every element is inside.
struct TorchTensor {
  std::string name;
  const char* file_dtype = "";  // as safetensors names it
  std::optional<DType> dtype;   // absent: a type that no Tensor holds
  int element_bytes = 0;
  int number_bytes = 0;         // of the numbers an element consists of: half of a complex one's
  Shape shape;
  uint64_t num_bytes = 0;       // of all elements
  size_t storage = 0;           // in TorchState::storages
  uint64_t begin = 0;           // of the first element, in bytes of the storage
  std::vector<int64_t> strides; // in elements, none negative
  bool row_major = false;       // the elements stand in the storage in their order, without gaps
};

struct TorchState {
  std::vector<TorchTensor> tensors;    // in the order of the dictionary
  std::vector<TorchStorage> storages;  // all that the pickle names, also those of no tensor here
};

// What such a pickle may name, for read_pickle().
std::span<const std::string_view> torch_globals();

// `part`: as of TorchFile::open(). Throws FileError naming `where`, the tensor and what is wrong.
TorchState read_torch_state(const Pickle& pickle, const std::string& part, const std::string& where);

// The first letters of a text from a file, without control characters, for messages.
std::string printable_start(std::string_view s);

}  // namespace trireme
