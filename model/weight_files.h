// The weights of a model as named tensors, whatever files they lie in: model.safetensors, pytorch_model.bin, or shards of
// either with an index.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "model/safetensors.h"
#include "model/torch_file.h"

namespace trireme {

struct WeightInfo {
  std::string name;            // as in the file
  std::string file_dtype;      // see SafetensorsEntry
  std::optional<DType> dtype;
  Shape shape;
  std::filesystem::path file;
};

// Files are mapped: opening reads headers alone, and a tensor's pages are read when it is. Reading is safe from several
// threads at once.
class WeightSource {
 public:
  // `path`: a file of safetensors or of torch.save, told apart by what is in it; or a folder. Of a folder the first is taken
  // that is there, as in `transformers`: model.safetensors, model.safetensors.index.json, pytorch_model.bin,
  // pytorch_model.bin.index.json. `part`: of files of torch.save, see TorchFile::open().
  // Throws FileError if there is none; on a damaged file; and if an index names a file outside the folder or one that
  // is missing, lists a tensor that its shard has not, omits one that a shard has, or, of safetensors, gives a wrong
  // total_size (those of torch.save's count tensors that share memory once or twice, by version).
  static WeightSource open(const std::filesystem::path& path, const std::string& part = "");

  // Of all tensors: shards in the index's order, then the order of their data.
  const std::vector<std::string>& names() const { return names_; }

  // Under any of names_in_files(name): without the family's prefix, or as older files call it.
  bool has(const std::string& name) const { return find(name) != nullptr; }
  // Throws FileError with the nearest name.
  WeightInfo info(const std::string& name) const;

  // Throws FileError "model.safetensors: blocks.3.wq is [512,512], the model wants [1024,512]; check the model's config"
  // unless the tensor is there with this shape.
  void expect(const std::string& name, const Shape& shape) const;

  // A contiguous copy of a part, as `dtype`. Floating types convert (rounding to nearest even; F64 by way of f32); others
  // must be the file's. Throws FileError, or ShapeError for a box that reaches outside.
  Tensor read_box(const std::string& name, const Box& box, DType dtype) const;
  Tensor read(const std::string& name, DType dtype) const;

  // The elements of a part in row-major order, little-endian, as the file has them, whatever their type. Throws as
  // read_box(), and ShapeError where `to` has another size.
  void read_bytes(const std::string& name, const Box& box, std::span<std::byte> to) const;
  // Hint that a tensor's pages are no longer wanted.
  void advise_done_with(const std::string& name) const;

  // The same part as a view of the mapping, which it keeps alive; writing to it ends the process. Undefined
  // where that cannot be: another dtype in the file, columns left out, data not aligned to its elements or not in their order.
  // Throws as read_box().
  Tensor view_rows(const std::string& name, const Box& box, DType dtype) const;

  // Reads every byte, comparing checksums where there are any. Throws FileError naming the first element that is NaN or infinite.
  void verify() const;

  const std::filesystem::path& path() const { return path_; }

 private:
  using File = std::variant<SafetensorsFile, TorchFile>;
  struct Location {
    size_t file = 0, entry = 0;
  };
  const Location* find(const std::string& name) const;
  const Location& at(const std::string& name) const;
  const SafetensorsEntry& entry_of(const Location& l) const;
  void add(File file);
  void open_index(const std::filesystem::path& folder, const std::filesystem::path& index);

  std::filesystem::path path_;
  std::string part_;
  std::vector<File> files_;
  std::vector<std::string> names_;
  std::unordered_map<std::string, Location> by_name_;
};

}  // namespace trireme
