#include "model/weight_files.h"

#include <boost/json.hpp>

#include <cstring>

#include "base/json.h"
#include "base/nearest_name.h"
#include "model/copy_box.h"
#include "model/weight_names.h"

namespace trireme {
namespace {

namespace json = boost::json;

constexpr size_t kMaxIndexBytes = 256 << 20;

// A shard's name must stay in the folder of its index.
void check_shard_name(const std::string& file, const std::string& tensor, const std::string& index) {
  const bool inside = !file.empty() && file.find('/') == file.npos && file.find('\\') == file.npos &&
                      file.find("..") == file.npos && file.find('\0') == file.npos && file[0] != '.';
  check<FileError>(inside, index, ": weight_map places ", tensor, " in ", to_json(json::value(file)),
                   "; shards are files of the same folder");
}

// The index of the first element that is NaN or infinite, or -1. `Bits` with all of `exponent` set is such a value.
template <class Bits>
int64_t first_not_finite(std::span<const std::byte> bytes, Bits exponent) {
  const int64_t n = static_cast<int64_t>(bytes.size() / sizeof(Bits));
  const auto bad = [&](int64_t i) {
    Bits v;
    std::memcpy(&v, bytes.data() + i * sizeof(Bits), sizeof(Bits));  // data may be unaligned
    return (v & exponent) == exponent;
  };
  constexpr int64_t kBlock = 4096;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = std::min(n, begin + kBlock);
    bool any = false;
    for (int64_t i = begin; i < end; ++i) any |= bad(i);
    if (!any) continue;
    for (int64_t i = begin; i < end; ++i)
      if (bad(i)) return i;
  }
  return -1;
}

}  // namespace

WeightSource WeightSource::open(const std::filesystem::path& path) {
  WeightSource source;
  source.path_ = path;
  std::error_code ignored;
  if (!std::filesystem::is_directory(path, ignored)) {
    source.add(SafetensorsFile::open(path));
    return source;
  }
  const auto single = path / "model.safetensors", index = path / "model.safetensors.index.json";
  if (std::filesystem::exists(single, ignored)) {
    source.add(SafetensorsFile::open(single));
  } else if (std::filesystem::exists(index, ignored)) {
    source.open_index(path, index);
  } else {
    const bool pickled = std::filesystem::exists(path / "pytorch_model.bin", ignored) ||
                         std::filesystem::exists(path / "pytorch_model.bin.index.json", ignored);
    throw FileError(text(path.string(), ": holds neither model.safetensors nor model.safetensors.index.json",
                         pickled ? "; pickled weights (pytorch_model.bin) are never read, as they can run code: convert "
                                   "them to safetensors"
                                 : ""));
  }
  return source;
}

void WeightSource::add(SafetensorsFile file) {
  const size_t number = files_.size();
  for (size_t i = 0; i < file.entries().size(); ++i) {
    const std::string& name = file.entries()[i].name;
    names_.push_back(name);
    by_name_.emplace(name, Location{number, i});
  }
  files_.push_back(std::move(file));
}

void WeightSource::open_index(const std::filesystem::path& folder, const std::filesystem::path& index) {
  const std::string where = index.string();
  const json::value document = read_json_file(index, kMaxIndexBytes);
  const JsonObject root(document, where);
  const JsonObject map = root.object("weight_map");

  std::unordered_map<std::string, std::string> listed;
  std::unordered_map<std::string, size_t> count;  // tensors that the index places in each shard
  std::vector<std::string> shards;
  for (const auto& item : map.raw()) {
    const std::string tensor = item.key();
    const std::string file = json_string(item.value(), where, map.path_of(tensor));
    check_shard_name(file, tensor, where);
    if (count[file]++ == 0) shards.push_back(file);
    listed.emplace(tensor, file);
  }

  uint64_t total = 0;
  for (const std::string& shard : shards) {
    const auto path = folder / shard;
    std::error_code ignored;
    check<FileError>(std::filesystem::exists(path, ignored), where, ": shard ", shard, " is missing from ",
                     folder.string());
    SafetensorsFile file = SafetensorsFile::open(path);
    for (const SafetensorsEntry& e : file.entries()) {
      const auto it = listed.find(e.name);
      check<FileError>(it != listed.end(), where, ": does not list ", e.name, ", which is in ", shard);
      check<FileError>(it->second == shard, where, ": places ", e.name, " in ", it->second, ", but ", shard,
                       " has it too");
      total += e.num_bytes;
    }
    if (file.entries().size() != count[shard]) {  // each entry is listed, so some listed one is absent
      for (const auto& item : map.raw())
        check<FileError>(listed[item.key()] != shard || file.find(item.key()), where, ": places ",
                         std::string_view(item.key()), " in ", shard, ", which does not have it");
    }
    add(std::move(file));
  }

  if (const auto metadata = root.optional_object("metadata")) {
    if (const auto size = metadata->optional_integer("total_size", 0))
      check<FileError>(static_cast<uint64_t>(*size) == total, where, ": metadata.total_size is ", *size,
                       ", but the tensors of the shards have ", total, " bytes");
  }
}

const WeightSource::Location* WeightSource::find(const std::string& name) const {
  if (const auto it = by_name_.find(name); it != by_name_.end()) return &it->second;
  for (const std::string& other : names_in_files(name))
    if (const auto it = by_name_.find(other); it != by_name_.end()) return &it->second;
  return nullptr;
}

const WeightSource::Location& WeightSource::at(const std::string& name) const {
  if (const Location* l = find(name)) return *l;
  const std::string nearest = nearest_name(name, names_);
  throw FileError(text(path_.string(), ": has no tensor ", name, nearest.empty() ? "" : "; the nearest name is ",
                       nearest));
}

WeightInfo WeightSource::info(const std::string& name) const {
  const Location& l = at(name);
  const SafetensorsEntry& e = entry_of(l);
  return {e.name, e.file_dtype, e.dtype, e.shape, files_[l.file].path()};
}

void WeightSource::expect(const std::string& name, const Shape& shape) const {
  const WeightInfo found = info(name);
  check<FileError>(found.shape == shape, found.file.string(), ": ", found.name, " is ", found.shape,
                   ", the model wants ", shape, "; check the model's config");
}

Tensor WeightSource::read_box(const std::string& name, const Box& box, DType dtype) const {
  const Location& l = at(name);
  const SafetensorsEntry& e = entry_of(l);
  const SafetensorsFile& file = files_[l.file];
  check<FileError>(!e.dtype || *e.dtype == dtype || (is_float(*e.dtype) && is_float(dtype)), file.path().string(), ": ",
                   e.name, " is ", e.file_dtype, ", which does not convert to ", dtype);
  Tensor t = file.read_box(e.name, box);
  return t.dtype() == dtype ? t : cast(t, dtype);
}

Tensor WeightSource::view_rows(const std::string& name, const Box& box, DType dtype) const {
  const Location& l = at(name);
  const SafetensorsEntry& e = entry_of(l);
  const SafetensorsFile& file = files_[l.file];
  check_box(box, e.shape, file.path().string() + ": " + e.name);
  if (e.dtype != dtype || box.rank() == 0) return {};
  for (int d = 1; d < box.rank(); ++d)
    if (box.length[d] != e.shape[d]) return {};
  if (reinterpret_cast<uintptr_t>(file.bytes(e).data()) % size_of(dtype) != 0) return {};
  return file.tensor(e.name).rows(box.start[0], box.start[0] + box.length[0]);
}

Tensor WeightSource::read(const std::string& name, DType dtype) const {
  return read_box(name, whole(entry_of(at(name)).shape), dtype);
}

void WeightSource::verify() const {
  for (const SafetensorsFile& file : files_) {
    for (const SafetensorsEntry& e : file.entries()) {
      const std::span<const std::byte> bytes = file.bytes(e);
      int64_t bad = -1;
      if (e.dtype == DType::kF32) bad = first_not_finite<uint32_t>(bytes, 0x7f800000u);
      if (e.dtype == DType::kBF16) bad = first_not_finite<uint16_t>(bytes, 0x7f80u);
      if (e.dtype == DType::kF16) bad = first_not_finite<uint16_t>(bytes, 0x7c00u);
      if (e.file_dtype == "F64") bad = first_not_finite<uint64_t>(bytes, 0x7ff0000000000000u);
      check<FileError>(bad < 0, file.path().string(), ": element ", bad, " of ", e.name, " is not finite");
      file.advise_done_with(e);
    }
  }
}

}  // namespace trireme
