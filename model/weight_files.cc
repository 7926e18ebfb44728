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
namespace fs = std::filesystem;

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

using File = std::variant<SafetensorsFile, TorchFile>;

File open_file(const fs::path& path, const std::string& part) {
  if (TorchFile::is_one(path)) return TorchFile::open(path, part);
  check<FileError>(part.empty(), path.string(), ": a part, ", part, ", is of files of torch.save alone");
  return SafetensorsFile::open(path);
}

const std::vector<SafetensorsEntry>& entries_of(const File& file) {
  return std::visit([](const auto& f) -> const std::vector<SafetensorsEntry>& { return f.entries(); }, file);
}

const fs::path& path_of(const File& file) {
  return std::visit([](const auto& f) -> const fs::path& { return f.path(); }, file);
}

// Of little-endian f64.
Tensor from_f64(std::span<const std::byte> bytes, const Shape& shape, DType dtype) {
  Tensor t = empty(shape, DType::kF32);
  const std::span<float> to = t.span<float>();
  for (size_t i = 0; i < to.size(); ++i) {
    double v;
    std::memcpy(&v, bytes.data() + 8 * i, 8);
    to[i] = static_cast<float>(v);
  }
  return dtype == DType::kF32 ? t : cast(t, dtype);
}

}  // namespace

WeightSource WeightSource::open(const fs::path& path, const std::string& part) {
  WeightSource source;
  source.path_ = path;
  source.part_ = part;
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) {
    source.add(open_file(path, part));
    return source;
  }
  for (const char* name : {"model.safetensors", "pytorch_model.bin"}) {
    const fs::path single = path / name, index = path / text(name, ".index.json");
    if (fs::exists(single, ignored))
      source.add(open_file(single, part));
    else if (fs::exists(index, ignored))
      source.open_index(path, index);
    else
      continue;
    return source;
  }
  throw FileError(text(path.string(), ": holds neither model.safetensors nor pytorch_model.bin, nor the index of either"));
}

void WeightSource::add(File file) {
  const size_t number = files_.size();
  const std::vector<SafetensorsEntry>& entries = entries_of(file);
  for (size_t i = 0; i < entries.size(); ++i) {
    names_.push_back(entries[i].name);
    by_name_.emplace(entries[i].name, Location{number, i});
  }
  files_.push_back(std::move(file));
}

const SafetensorsEntry& WeightSource::entry_of(const Location& l) const { return entries_of(files_[l.file])[l.entry]; }

void WeightSource::open_index(const fs::path& folder, const fs::path& index) {
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
  bool sizes_are_known = true;
  for (const std::string& shard : shards) {
    const auto path = folder / shard;
    std::error_code ignored;
    check<FileError>(fs::exists(path, ignored), where, ": shard ", shard, " is missing from ",
                     folder.string());
    File file = open_file(path, part_);
    const std::vector<SafetensorsEntry>& entries = entries_of(file);
    sizes_are_known &= std::holds_alternative<SafetensorsFile>(file);
    for (const SafetensorsEntry& e : entries) {
      const auto it = listed.find(e.name);
      check<FileError>(it != listed.end(), where, ": does not list ", e.name, ", which is in ", shard);
      check<FileError>(it->second == shard, where, ": places ", e.name, " in ", it->second, ", but ", shard,
                       " has it too");
      total += e.num_bytes;
    }
    if (entries.size() != count[shard]) {  // each entry is listed, so some listed one is absent
      for (const auto& item : map.raw())
        check<FileError>(listed[item.key()] != shard ||
                             std::visit([&](const auto& f) { return f.find(item.key()) != nullptr; }, file),
                         where, ": places ",
                         std::string_view(item.key()), " in ", shard, ", which does not have it");
    }
    add(std::move(file));
  }

  if (const auto metadata = root.optional_object("metadata"); metadata && sizes_are_known) {
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
  return {e.name, e.file_dtype, e.dtype, e.shape, path_of(files_[l.file])};
}

void WeightSource::expect(const std::string& name, const Shape& shape) const {
  const WeightInfo found = info(name);
  check<FileError>(found.shape == shape, found.file.string(), ": ", found.name, " is ", found.shape,
                   ", the model wants ", shape, "; check the model's config");
}

Tensor WeightSource::read_box(const std::string& name, const Box& box, DType dtype) const {
  const Location& l = at(name);
  const SafetensorsEntry& e = entry_of(l);
  const File& file = files_[l.file];
  const bool is_f64 = e.file_dtype == "F64" && is_float(dtype);
  check<FileError>(is_f64 || !e.dtype || *e.dtype == dtype || (is_float(*e.dtype) && is_float(dtype)),
                   path_of(file).string(), ": ", e.name, " is ", e.file_dtype, ", which does not convert to ", dtype);
  if (is_f64) {
    check_box(box, e.shape, path_of(file).string() + ": " + e.name);
    std::vector<std::byte> bytes(static_cast<size_t>(box.numel()) * 8);
    std::visit([&](const auto& f) { f.read_bytes(e, box, bytes); }, file);
    return from_f64(bytes, shape_of(box), dtype);
  }
  Tensor t = std::visit([&](const auto& f) { return f.read_box(e.name, box); }, file);
  return t.dtype() == dtype ? t : cast(t, dtype);
}

void WeightSource::read_bytes(const std::string& name, const Box& box, std::span<std::byte> to) const {
  const Location& l = at(name);
  std::visit([&](const auto& f) { f.read_bytes(entry_of(l), box, to); }, files_[l.file]);
}

void WeightSource::advise_done_with(const std::string& name) const {
  const Location& l = at(name);
  std::visit([&](const auto& f) { f.advise_done_with(entry_of(l)); }, files_[l.file]);
}

Tensor WeightSource::view_rows(const std::string& name, const Box& box, DType dtype) const {
  const Location& l = at(name);
  const SafetensorsEntry& e = entry_of(l);
  const File& file = files_[l.file];
  check_box(box, e.shape, path_of(file).string() + ": " + e.name);
  if (e.dtype != dtype || box.rank() == 0) return {};
  for (int d = 1; d < box.rank(); ++d)
    if (box.length[d] != e.shape[d]) return {};
  const std::span<const std::byte> bytes = std::visit([&](const auto& f) { return f.bytes(e); }, file);
  if (bytes.size() != e.num_bytes || reinterpret_cast<uintptr_t>(bytes.data()) % size_of(dtype) != 0) return {};
  return std::visit([&](const auto& f) { return f.tensor(e.name); }, file)
      .rows(box.start[0], box.start[0] + box.length[0]);
}

Tensor WeightSource::read(const std::string& name, DType dtype) const {
  return read_box(name, whole(entry_of(at(name)).shape), dtype);
}

void WeightSource::verify() const {
  for (const File& file : files_) {
    for (const SafetensorsEntry& e : entries_of(file)) {
      std::span<const std::byte> bytes = std::visit([&](const auto& f) { return f.bytes(e); }, file);
      std::vector<std::byte> copied;
      if (bytes.size() != e.num_bytes) {
        copied.resize(e.num_bytes);
        std::visit([&](const auto& f) { f.read_bytes(e, whole(e.shape), copied); }, file);
        bytes = copied;
      }
      int64_t bad = -1;
      if (e.dtype == DType::kF32) bad = first_not_finite<uint32_t>(bytes, 0x7f800000u);
      if (e.dtype == DType::kBF16) bad = first_not_finite<uint16_t>(bytes, 0x7f80u);
      if (e.dtype == DType::kF16) bad = first_not_finite<uint16_t>(bytes, 0x7c00u);
      if (e.file_dtype == "F64") bad = first_not_finite<uint64_t>(bytes, 0x7ff0000000000000u);
      check<FileError>(bad < 0, path_of(file).string(), ": element ", bad, " of ", e.name, " is not finite");
      std::visit([&](const auto& f) { f.advise_done_with(e); }, file);
    }
  }
}

}  // namespace trireme
