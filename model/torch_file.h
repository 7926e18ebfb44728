// Weights as torch.save writes them: pytorch_model.bin, .pt, .pth. A pickle of a dictionary from names to tensors, each a
// view (offset, sizes, strides) of a storage, and the storages' bytes; in a zip archive, or, before PyTorch 1.6, one
// after another. The pickle is read as data (model/pickle.h): a file can run nothing, whatever it holds.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/box.h"
#include "base/mapped_file.h"
#include "model/safetensors.h"
#include "model/torch_state.h"
#include "tensor/tensor.h"

namespace trireme {

// A file, memory-mapped. Opening reads names and places alone. Reading is safe from several threads at once.
class TorchFile {
 public:
  // `part`: where the tensors are not the whole file, the key of the dictionary that has them, e.g. "state_dict" of
  // {"state_dict": {...}, "epoch": 3}; "" for the whole.
  // Throws FileError naming the path, the place and what is wrong: damage, anything but a dictionary of strings to
  // tensors (with the parts that are one), anything that the pickle may not hold, tensors that reach outside their
  // storage, sparse and quantized tensors, TorchScript.
  static TorchFile open(const std::filesystem::path& path, const std::string& part = "");
  // Whether the file begins as one of torch.save does. Throws FileError if it cannot be read.
  static bool is_one(const std::filesystem::path& path);

  // In the order of the dictionary. Types have the names of safetensors. `offset` is that of the tensor's first element.
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }
  const SafetensorsEntry* find(const std::string& name) const;  // null if there is none
  const std::filesystem::path& path() const { return file_->path(); }

  // The four below compare a storage with its checksum the first time that they come to it (archives have them, unless
  // torch.serialization.set_crc32_options(False) left all of them out), and throw FileError if it is another.

  // The elements in row-major order, as they stand in the file, possibly unaligned; empty if they do not stand so: there
  // are none, the tensor is a transposed or otherwise strided view, or the file is of a big-endian machine.
  std::span<const std::byte> bytes(const SafetensorsEntry& entry) const;
  // A view of the mapping, which it keeps alive; a copy where that cannot be. Throws FileError for a dtype that no Tensor
  // holds.
  Tensor tensor(const std::string& name) const;
  // A copy of a part, contiguous. Throws as tensor(), and ShapeError for a box that reaches outside.
  Tensor read_box(const std::string& name, const Box& box) const;
  // The elements of a part in row-major order, little-endian, whatever their type. Throws ShapeError for a box that
  // reaches outside and where `to` has another size.
  void read_bytes(const SafetensorsEntry& entry, const Box& box, std::span<std::byte> to) const;

  void advise_done_with(const SafetensorsEntry& entry) const;

 private:
  struct Storage {
    std::string key;
    uint64_t offset = 0, num_bytes = 0;  // in the file
    uint32_t crc = 0;
  };
  struct Checked {
    explicit Checked(size_t n) : once(new std::once_flag[n]) {}
    std::unique_ptr<std::once_flag[]> once;
  };

  void load_archive(const std::string& part);
  void load_legacy(const std::string& part);
  void take(std::vector<TorchTensor> tensors);
  const TorchTensor& tensor_of(const SafetensorsEntry& entry) const;
  const SafetensorsEntry& readable(const std::string& name) const;
  void check_storage(size_t storage) const;

  std::shared_ptr<MappedFile> file_;
  std::vector<SafetensorsEntry> entries_;
  std::vector<TorchTensor> tensors_;  // of the entries
  std::unordered_map<std::string, size_t> by_name_;
  std::vector<Storage> storages_;
  std::shared_ptr<Checked> checked_;
  bool has_checksums_ = false, swapped_ = false;
};

}  // namespace trireme
