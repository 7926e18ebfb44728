// The safetensors format, github.com/huggingface/safetensors: u64 header length (little endian), a JSON header that
// gives each tensor's dtype, shape and byte range, then the data, without gaps, to the end of the file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/box.h"
#include "base/files.h"
#include "base/mapped_file.h"
#include "tensor/tensor.h"

namespace trireme {

struct SafetensorsEntry {
  std::string name;
  std::string file_dtype;      // as the format names it: "F32", "BF16", "F64", "F8_E4M3", ...
  std::optional<DType> dtype;  // absent: a type that is listed here, but that no Tensor holds
  Shape shape;
  uint64_t offset = 0, num_bytes = 0;  // in the file
};

// The format's name of a dtype.
const char* safetensors_name(DType t);
// The bytes of an element of a type that the format knows by this name; 0 for other names.
uint64_t safetensors_element_bytes(std::string_view name);

// A file, memory-mapped. Opening checks the whole header: every byte of data belongs to exactly one tensor whose size
// fits its shape and dtype. Reading is safe from several threads at once.
class SafetensorsFile {
 public:
  static constexpr uint64_t kMaxHeaderBytes = 100'000'000;
  static constexpr size_t kMaxNameBytes = 1024;

  // Throws FileError naming the path, what is wrong, and where in the header it stands.
  static SafetensorsFile open(const std::filesystem::path& path);

  // In the order of their data.
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }
  const SafetensorsEntry* find(const std::string& name) const;  // null if there is none
  // Throws FileError with the nearest name.
  const SafetensorsEntry& at(const std::string& name) const;
  // The "__metadata__" of the header, in its order.
  const std::vector<std::pair<std::string, std::string>>& metadata() const { return metadata_; }
  const std::filesystem::path& path() const { return file_->path(); }

  // The data as it stands in the file, possibly unaligned.
  std::span<const std::byte> bytes(const SafetensorsEntry& entry) const;

  // A view of the mapping, which it keeps alive; a copy where the data is not aligned to its elements. Writing to a view
  // ends the process. Throws FileError for a dtype that no Tensor holds.
  Tensor tensor(const std::string& name) const;

  // A copy of a part, contiguous. Throws FileError as tensor() does, ShapeError for a box that reaches outside.
  Tensor read_box(const std::string& name, const Box& box) const;

  // The elements of a part in row-major order, whatever their type. Throws ShapeError for a box that reaches outside and
  // where `to` has another size.
  void read_bytes(const SafetensorsEntry& entry, const Box& box, std::span<std::byte> to) const;

  // Hints that a tensor's pages are wanted soon, or no longer; never fails.
  void advise_will_need(const SafetensorsEntry& entry) const;
  void advise_done_with(const SafetensorsEntry& entry) const;

 private:
  const SafetensorsEntry& readable(const std::string& name) const;

  std::shared_ptr<MappedFile> file_;
  std::vector<SafetensorsEntry> entries_;
  std::unordered_map<std::string, size_t> by_name_;
  std::vector<std::pair<std::string, std::string>> metadata_;
};

struct SafetensorsSpec {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  std::string file_dtype = "";  // in the place of `dtype`, a type that no Tensor holds, as the format names it: "F64"
  uint64_t element_bytes() const { return file_dtype.empty() ? size_of(dtype) : safetensors_element_bytes(file_dtype); }
  uint64_t num_bytes() const { return static_cast<uint64_t>(shape.numel()) * element_bytes(); }
};

// Writes a file front to back, each tensor in as many pieces as its producer likes. The header is padded so that the data
// starts at a multiple of 8. The partial file of a failure stays, for the caller to remove.
class SafetensorsWriter {
 public:
  // `tensors` in the order in which their data will come. Throws FileError if a name is empty, too long, not UTF-8, used
  // twice or "__metadata__", if the format knows no such type, if a tensor would not be aligned to its elements (put wider dtypes first), or if the file
  // cannot be written.
  SafetensorsWriter(const std::filesystem::path& path, std::vector<SafetensorsSpec> tensors,
                    const std::vector<std::pair<std::string, std::string>>& metadata = {{"format", "pt"}});

  // The next bytes of tensor `name`. Throws ShapeError if it is another tensor's turn, or if these are too many.
  void write(const std::string& name, std::span<const std::byte> bytes);

  // Syncs and closes. Throws ShapeError if data is missing. Returns the hash of the file.
  FileHash finish();
  uint64_t file_bytes() const { return file_.bytes_written(); }

 private:
  SafetensorsWriter(const std::filesystem::path& path, const std::string& header,
                    std::vector<SafetensorsSpec>&& tensors);
  void skip_complete();  // to the next tensor that still wants bytes

  FileWriter file_;
  std::vector<SafetensorsSpec> tensors_;
  size_t current_ = 0;
  uint64_t written_ = 0;  // of the current tensor
};

}  // namespace trireme
