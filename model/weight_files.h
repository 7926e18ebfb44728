// The weights of a model as named tensors, whatever files they lie in: model.safetensors, or shards with
// model.safetensors.index.json.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "model/safetensors.h"

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
  // `path`: a .safetensors file, or a folder. A folder's model.safetensors goes before an index, as in `transformers`.
  // Throws FileError if there is neither; on a damaged file; and if an index names a file outside the folder or one that
  // is missing, lists a tensor that its shard has not, omits one that a shard has, or gives a wrong total_size.
  static WeightSource open(const std::filesystem::path& path);

  // Of all tensors: shards in the index's order, then the order of their data.
  const std::vector<std::string>& names() const { return names_; }

  // Under any of names_in_files(name): without the family's prefix, or as older files call it.
  bool has(const std::string& name) const { return find(name) != nullptr; }
  // Throws FileError with the nearest name.
  WeightInfo info(const std::string& name) const;

  // Throws FileError "model.safetensors: blocks.3.wq is [512,512], the model wants [1024,512]; check the model's config"
  // unless the tensor is there with this shape.
  void expect(const std::string& name, const Shape& shape) const;

  // A contiguous copy of a part, as `dtype`. Floating types convert (rounding to nearest even); others must be the
  // file's. Throws FileError, or ShapeError for a box that reaches outside.
  Tensor read_box(const std::string& name, const Box& box, DType dtype) const;
  Tensor read(const std::string& name, DType dtype) const;

  // The same part as a view of the mapping, which it keeps alive; writing to it ends the process. Undefined
  // where that cannot be: another dtype in the file, columns left out, or data not aligned to its elements.
  // Throws as read_box().
  Tensor view_rows(const std::string& name, const Box& box, DType dtype) const;

  // Reads every byte. Throws FileError naming the first element that is NaN or infinite.
  void verify() const;

  const std::filesystem::path& path() const { return path_; }

 private:
  struct Location {
    size_t file = 0, entry = 0;
  };
  const Location* find(const std::string& name) const;
  const Location& at(const std::string& name) const;
  const SafetensorsEntry& entry_of(const Location& l) const { return files_[l.file].entries()[l.entry]; }
  void add(SafetensorsFile file);
  void open_index(const std::filesystem::path& folder, const std::filesystem::path& index);

  std::filesystem::path path_;
  std::vector<SafetensorsFile> files_;
  std::vector<std::string> names_;
  std::unordered_map<std::string, Location> by_name_;
};

}  // namespace trireme
