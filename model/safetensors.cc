#include "model/safetensors.h"

#include <boost/json.hpp>

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/json.h"
#include "base/nearest_name.h"
#include "model/copy_box.h"

namespace trireme {
namespace {

namespace json = boost::json;
static_assert(std::endian::native == std::endian::little, "data is used as it stands in the file");

struct FileDType {
  std::string_view name;
  uint64_t bytes;
  std::optional<DType> dtype;
};

constexpr FileDType kFileDTypes[] = {
    {"F32", 4, DType::kF32}, {"BF16", 2, DType::kBF16}, {"F16", 2, DType::kF16},   {"I32", 4, DType::kI32},
    {"I64", 8, DType::kI64}, {"U8", 1, DType::kU8},     {"F64", 8, {}},            {"F8_E4M3", 1, {}},
    {"F8_E5M2", 1, {}},      {"F8_E8M0", 1, {}},        {"I8", 1, {}},             {"I16", 2, {}},
    {"U16", 2, {}},          {"U32", 4, {}},            {"U64", 8, {}},            {"BOOL", 1, {}},
    {"C64", 8, {}},          {"F8_E4M3FNUZ", 1, {}},    {"F8_E5M2FNUZ", 1, {}}};

const FileDType* find_dtype(std::string_view name) {
  for (const FileDType& t : kFileDTypes)
    if (t.name == name) return &t;
  return nullptr;
}

void check_name(const std::string& name, const std::string& where) {
  check<FileError>(name.size() <= SafetensorsFile::kMaxNameBytes, where, ": a tensor's name has ", name.size(),
                   " bytes; at most ", SafetensorsFile::kMaxNameBytes, " are supported");
  check<FileError>(name.find('\0') == name.npos, where, ": a tensor's name has a NUL: ", to_json(json::value(name)));
}

// One entry, its offsets still from the start of the data.
SafetensorsEntry read_entry(const std::string& name, const json::value& value, uint64_t data_bytes,
                            const std::string& where) {
  check_name(name, where);
  const std::string path = to_json(json::value(name));
  const JsonObject o(value, where, path);
  o.allow_only({"dtype", "shape", "data_offsets"});

  SafetensorsEntry entry;
  entry.name = name;
  entry.file_dtype = o.string("dtype");
  const FileDType* type = find_dtype(entry.file_dtype);
  if (!type) o.fail("dtype", text("is ", describe(*o.find("dtype")), ", which is not a known type"));
  entry.dtype = type->dtype;

  const json::array& dims = o.array("shape");
  if (dims.size() > Shape::kMaxRank)
    o.fail("shape", text("has ", dims.size(), " dimensions; at most ", Shape::kMaxRank, " are supported"));
  std::vector<int64_t> sizes;
  for (size_t i = 0; i < dims.size(); ++i)
    sizes.push_back(json_integer(dims[i], where, text(o.path_of("shape"), '[', i, ']'), 0));
  uint64_t wanted = 0;
  try {
    entry.shape = Shape(std::span<const int64_t>(sizes));
  } catch (const ShapeError& e) {
    o.fail("shape", text("is ", to_json(dims), ": ", e.what()));
  }
  if (__builtin_mul_overflow(static_cast<uint64_t>(entry.shape.numel()), type->bytes, &wanted))
    o.fail("shape", text("is ", entry.shape, " of ", entry.file_dtype, ": more bytes than 64 bits can count"));

  const json::array& offsets = o.array("data_offsets");
  if (offsets.size() != 2) o.fail("data_offsets", text("is ", describe(offsets), "; it must be [begin, end]"));
  const auto begin = static_cast<uint64_t>(json_integer(offsets[0], where, o.path_of("data_offsets[0]"), 0));
  const auto end = static_cast<uint64_t>(json_integer(offsets[1], where, o.path_of("data_offsets[1]"), 0));
  if (begin > end || end > data_bytes)
    o.fail("data_offsets", text("is [", begin, ", ", end, "]; begin may not be above end, nor end above the ",
                                data_bytes, " bytes of data in the file"));
  if (end - begin != wanted)
    o.fail("data_offsets", text("span ", end - begin, " bytes, but ", entry.file_dtype, " ", entry.shape, " takes ",
                                wanted));
  entry.offset = begin;
  entry.num_bytes = wanted;
  return entry;
}

// Each byte of the data must belong to exactly one tensor.
void check_cover(const std::vector<SafetensorsEntry>& entries, uint64_t data_bytes, const std::string& where) {
  uint64_t end = 0;
  std::string before = "the header";
  for (const SafetensorsEntry& e : entries) {
    const std::string name = to_json(json::value(e.name));
    check<FileError>(e.offset >= end, where, ": the data of ", name, " begins at ", e.offset, ", inside that of ", before,
                     ", which ends at ", end);
    check<FileError>(e.offset == end, where, ": a hole of ", e.offset - end, " bytes lies between the data of ", before,
                     " and of ", name);
    end = e.offset + e.num_bytes;
    before = name;
  }
  check<FileError>(end == data_bytes, where, ": ", data_bytes - end, " bytes follow the last tensor's data");
}

}  // namespace

const char* safetensors_name(DType t) {
  for (const FileDType& f : kFileDTypes)
    if (f.dtype == t) return f.name.data();
  TRIREME_ASSERT(false);
  return "";
}

uint64_t safetensors_element_bytes(std::string_view name) {
  const FileDType* type = find_dtype(name);
  return type ? type->bytes : 0;
}

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  SafetensorsFile result;
  result.file_ = std::make_shared<MappedFile>(MappedFile::open(path));
  const std::span<const std::byte> all = result.file_->bytes();
  check<FileError>(all.size() >= 8, path.string(), ": has ", all.size(),
                   " bytes; a safetensors file starts with 8 that give its header's length");
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, all.data(), 8);
  check<FileError>(header_bytes <= kMaxHeaderBytes, path.string(), ": gives its header ", header_bytes,
                   " bytes; at most ", kMaxHeaderBytes, " are accepted. Is it a safetensors file?");
  check<FileError>(header_bytes <= all.size() - 8, path.string(), ": gives its header ", header_bytes,
                   " bytes, but only ", all.size() - 8, " follow; is it cut off?");
  const uint64_t data_start = 8 + header_bytes, data_bytes = all.size() - data_start;

  const std::string where = path.string() + ": header";
  const json::value header =
      parse_json({reinterpret_cast<const char*>(all.data()) + 8, static_cast<size_t>(header_bytes)}, where);
  const JsonObject o(header, where);
  for (const auto& item : header.get_object()) {
    const std::string name = item.key();
    if (name != "__metadata__") {
      result.entries_.push_back(read_entry(name, item.value(), data_bytes, where));
      continue;
    }
    const JsonObject metadata(item.value(), where, name);
    for (const auto& pair : metadata.raw())
      result.metadata_.emplace_back(pair.key(), json_string(pair.value(), where, metadata.path_of(pair.key())));
  }
  // Tensors without elements share their offset with a neighbour; they come first.
  std::stable_sort(result.entries_.begin(), result.entries_.end(), [](const auto& a, const auto& b) {
    return std::pair(a.offset, a.num_bytes) < std::pair(b.offset, b.num_bytes);
  });
  check_cover(result.entries_, data_bytes, where);
  for (size_t i = 0; i < result.entries_.size(); ++i) {
    result.entries_[i].offset += data_start;
    result.by_name_.emplace(result.entries_[i].name, i);
  }
  return result;
}

const SafetensorsEntry* SafetensorsFile::find(const std::string& name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &entries_[it->second];
}

const SafetensorsEntry& SafetensorsFile::at(const std::string& name) const {
  if (const SafetensorsEntry* entry = find(name)) return *entry;
  std::vector<std::string> names;
  for (const SafetensorsEntry& e : entries_) names.push_back(e.name);
  const std::string nearest = nearest_name(name, names);
  throw FileError(text(path().string(), ": has no tensor ", name, nearest.empty() ? "" : "; the nearest name is ",
                       nearest));
}

std::span<const std::byte> SafetensorsFile::bytes(const SafetensorsEntry& entry) const {
  return file_->bytes().subspan(entry.offset, entry.num_bytes);
}

const SafetensorsEntry& SafetensorsFile::readable(const std::string& name) const {
  const SafetensorsEntry& entry = at(name);
  check<FileError>(entry.dtype.has_value(), path().string(), ": ", name, " is ", entry.file_dtype, " ", entry.shape,
                   "; tensors of that type are not supported, convert it to F32, BF16, F16, I32, I64 or U8");
  return entry;
}

Tensor SafetensorsFile::tensor(const std::string& name) const {
  const SafetensorsEntry& entry = readable(name);
  const std::span<const std::byte> data = bytes(entry);
  if (reinterpret_cast<uintptr_t>(data.data()) % size_of(*entry.dtype) != 0) return read_box(name, whole(entry.shape));
  return Tensor::from_memory(const_cast<std::byte*>(data.data()), entry.shape, *entry.dtype, Device::cpu(), file_);
}

Tensor SafetensorsFile::read_box(const std::string& name, const Box& box) const {
  const SafetensorsEntry& entry = readable(name);
  check_box(box, entry.shape, path().string() + ": " + name);
  Tensor result = empty(shape_of(box), *entry.dtype);
  copy_box(bytes(entry), entry.shape, box, size_of(*entry.dtype),
           {static_cast<std::byte*>(result.raw()), result.num_bytes()});
  return result;
}

void SafetensorsFile::read_bytes(const SafetensorsEntry& entry, const Box& box, std::span<std::byte> to) const {
  const std::string where = path().string() + ": " + entry.name;
  check_box(box, entry.shape, where);
  const uint64_t size = safetensors_element_bytes(entry.file_dtype);
  check(to.size() == static_cast<uint64_t>(box.numel()) * size, where, ": ", to.size(), " bytes for ", box.numel(),
        " elements of ", size);
  copy_box(bytes(entry), entry.shape, box, size, to);
}

void SafetensorsFile::advise_will_need(const SafetensorsEntry& e) const { file_->advise_will_need(e.offset, e.num_bytes); }
void SafetensorsFile::advise_done_with(const SafetensorsEntry& e) const { file_->advise_done_with(e.offset, e.num_bytes); }

}  // namespace trireme
