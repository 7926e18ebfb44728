#include "model/torch_file.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/crc32.h"
#include "base/zip_directory.h"
#include "model/copy_box.h"
#include "model/torch_state.h"

namespace trireme {
namespace {

using Kind = PickleValue::Kind;

// 0x1950a86a20f9469cfc6c, little-endian.
constexpr std::string_view kLegacyMagic("\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 10);
constexpr int64_t kLegacyVersion = 1001;

// What stands at the front of a file.
enum class Form { kArchive, kLegacy, kOther };
Form form_of(std::span<const std::byte> begin) {
  const std::string_view s(reinterpret_cast<const char*>(begin.data()), begin.size());
  // A safetensors file may have a header of any length, hence begin with any eight bytes, but then comes its header.
  if (s.size() > 8 && s[8] == '{') return Form::kOther;
  if (s.starts_with("PK\x03\x04")) return Form::kArchive;
  if (s.size() >= 4 && s[0] == '\x80' && s.substr(2, 2) == "\x8a\x0a") return Form::kLegacy;
  return Form::kOther;
}

void swap_bytes(std::span<std::byte> data, int number_bytes) {
  for (size_t i = 0; i + number_bytes <= data.size(); i += number_bytes)
    std::reverse(data.begin() + static_cast<std::ptrdiff_t>(i), data.begin() + static_cast<std::ptrdiff_t>(i + number_bytes));
}

}  // namespace

void TorchFile::load_archive(const std::string& part) {
  const std::span<const std::byte> all = file_->bytes();
  const std::string where = path().string();
  const std::vector<ZipEntry> files = read_zip_directory(all, where);
  std::unordered_map<std::string_view, const ZipEntry*> by_name;
  for (const ZipEntry& e : files) by_name.emplace(e.name, &e);
  const auto find = [&](const std::string& name) {
    const auto it = by_name.find(name);
    return it == by_name.end() ? nullptr : it->second;
  };
  check<FileError>(!files.empty(), where, ": an archive of no files");
  const std::string root = files[0].name.substr(0, files[0].name.find('/')) + "/";
  const ZipEntry* pickle = find(root + "data.pkl");
  check<FileError>(pickle != nullptr, where, ": a zip archive without ", root, "data.pkl; torch.save writes one");
  check<FileError>(!find(root + "constants.pkl"), where,
                   ": a TorchScript program, not a dictionary of tensors; write it anew with "
                   "torch.save(model.state_dict(), ...)");
  for (const ZipEntry& e : files) require_stored(e, where);
  has_checksums_ = pickle->crc != 0;  // archives written without any have 0 in all places
  const auto contents = [&](const ZipEntry& e) {
    const std::span<const std::byte> bytes = all.subspan(e.offset, e.num_bytes);
    check<FileError>(!has_checksums_ || crc32(bytes) == e.crc, where, ": ", e.name,
                     " is damaged: its checksum is not that of the directory");
    return bytes;
  };
  if (const ZipEntry* order = find(root + "byteorder")) {
    const std::span<const std::byte> b = contents(*order);
    const std::string_view said(reinterpret_cast<const char*>(b.data()), b.size());
    check<FileError>(said == "little" || said == "big", where, ": ", order->name, " says neither little nor big");
    swapped_ = said == "big";
  }
  const std::string place = where + ": " + pickle->name;
  TorchState state = read_torch_state(read_pickle(contents(*pickle), torch_globals(), place), part, place);
  for (const TorchStorage& s : state.storages) {
    const ZipEntry* e = find(root + "data/" + s.key);
    check<FileError>(e != nullptr, place, ": names the storage ", printable_start(s.key), ", which the archive has not");
    check<FileError>(e->num_bytes == s.num_bytes, where, ": ", e->name, " has ", e->num_bytes,
                     " bytes, but the pickle gives it ", s.num_bytes);
    storages_.push_back({s.key, e->offset, e->num_bytes, e->crc});
  }
  take(std::move(state.tensors));
}

// Five pickles (magic number, version, facts of the machine, the object, the keys of the storages), then of each storage,
// in the order of the keys, its number of elements and they themselves: little-endian, from whichever machine.
void TorchFile::load_legacy(const std::string& part) {
  const std::span<const std::byte> all = file_->bytes();
  const std::string where = path().string();
  size_t at = 0;
  const auto next = [&](const char* what) {
    Pickle p = read_pickle(all.subspan(at), torch_globals(), text(where, ": ", what, ", at ", at));
    at += p.num_bytes;
    return p;
  };
  const Pickle magic = next("the magic number");
  check<FileError>(magic[magic.root].kind == Kind::kLong && magic[magic.root].text == kLegacyMagic, where,
                   ": a pickle, but not one of torch.save; write it anew with torch.save(model.state_dict(), ...)");
  const Pickle version = next("the version");
  check<FileError>(version[version.root].kind == Kind::kInteger && version[version.root].integer == kLegacyVersion, where,
                   ": the version is ", describe(version, version.root), ", not ", kLegacyVersion);
  next("the machine's facts");
  const std::string place = text(where, ": the pickle at ", at);
  TorchState state = read_torch_state(next("the dictionary"), part, place);
  const Pickle keys = next("the storages' keys");
  const PickleValue& list = keys[keys.root];
  check<FileError>(list.kind == Kind::kList, where, ": the storages' keys are ", describe(keys, keys.root));

  std::unordered_map<std::string_view, size_t> by_key;
  for (size_t i = 0; i < state.storages.size(); ++i) by_key.emplace(state.storages[i].key, i);
  storages_.resize(state.storages.size());
  for (const uint32_t k : list.items) {
    check<FileError>(keys[k].kind == Kind::kString, where, ": a storage's key is ", describe(keys, k));
    const std::string key = printable_start(keys[k].text);
    const auto named = by_key.find(keys[k].text);
    check<FileError>(named != by_key.end(), where, ": a storage has the key ", key, ", which the pickle does not name");
    const TorchStorage& s = state.storages[named->second];
    Storage& to = storages_[named->second];
    check<FileError>(to.offset == 0, where, ": the storage ", key, " is there twice");
    check<FileError>(all.size() - at >= 8 && all.size() - at - 8 >= s.num_bytes, where, ": the storage ", key,
                     " would have ", s.num_bytes, " bytes from ", at, " on, but the file ends at ", all.size(),
                     "; is it cut off?");
    int64_t count = 0;
    std::memcpy(&count, all.data() + at, 8);
    check<FileError>(count == s.numel, where, ": the storage ", key, " at ", at, " has ", count,
                     " elements, but the pickle gives it ", s.numel);
    to = {s.key, at + 8, s.num_bytes, 0};
    at += 8 + s.num_bytes;
  }
  check<FileError>(at == all.size(), where, ": ", all.size() - at, " bytes follow the last storage");
  for (size_t i = 0; i < storages_.size(); ++i)
    check<FileError>(storages_[i].offset != 0, place, ": names the storage ", printable_start(state.storages[i].key),
                     ", which the file has not");
  take(std::move(state.tensors));
}

void TorchFile::take(std::vector<TorchTensor> tensors) {
  for (const TorchTensor& t : tensors) {
    by_name_.emplace(t.name, entries_.size());
    entries_.push_back({t.name, t.file_dtype, t.dtype, t.shape, storages_[t.storage].offset + t.begin, t.num_bytes});
  }
  tensors_ = std::move(tensors);
  checked_ = std::make_shared<Checked>(storages_.size());
}

TorchFile TorchFile::open(const std::filesystem::path& path, const std::string& part) {
  TorchFile result;
  result.file_ = std::make_shared<MappedFile>(MappedFile::open(path));
  switch (form_of(result.file_->bytes())) {
    case Form::kArchive: result.load_archive(part); break;
    case Form::kLegacy: result.load_legacy(part); break;
    case Form::kOther: throw FileError(text(path.string(), ": is no file of torch.save"));
  }
  return result;
}

bool TorchFile::is_one(const std::filesystem::path& path) { return form_of(MappedFile::open(path).bytes()) != Form::kOther; }

const SafetensorsEntry* TorchFile::find(const std::string& name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &entries_[it->second];
}

const TorchTensor& TorchFile::tensor_of(const SafetensorsEntry& entry) const {
  const auto it = by_name_.find(entry.name);
  check<FileError>(it != by_name_.end(), path().string(), ": has no tensor ", entry.name);
  return tensors_[it->second];
}

void TorchFile::check_storage(size_t storage) const {
  if (!has_checksums_) return;
  std::call_once(checked_->once[storage], [&] {
    const Storage& s = storages_[storage];
    check<FileError>(crc32(file_->bytes().subspan(s.offset, s.num_bytes)) == s.crc, path().string(), ": the storage ", s.key,
                     " is damaged: its checksum is not that of the directory");
  });
}

std::span<const std::byte> TorchFile::bytes(const SafetensorsEntry& entry) const {
  const TorchTensor& t = tensor_of(entry);
  if (!t.row_major || (swapped_ && t.number_bytes > 1) || entry.num_bytes == 0) return {};
  check_storage(t.storage);
  return file_->bytes().subspan(entry.offset, entry.num_bytes);
}

const SafetensorsEntry& TorchFile::readable(const std::string& name) const {
  const SafetensorsEntry* entry = find(name);
  check<FileError>(entry != nullptr, path().string(), ": has no tensor ", name);
  check<FileError>(entry->dtype.has_value(), path().string(), ": ", name, " is ", entry->file_dtype, " ", entry->shape,
                   "; tensors of that type are not supported, convert it to F32, BF16, F16, I32, I64 or U8");
  return *entry;
}

Tensor TorchFile::tensor(const std::string& name) const {
  const SafetensorsEntry& entry = readable(name);
  const std::span<const std::byte> data = bytes(entry);
  if (data.empty() || reinterpret_cast<uintptr_t>(data.data()) % size_of(*entry.dtype) != 0)
    return read_box(name, whole(entry.shape));
  return Tensor::from_memory(const_cast<std::byte*>(data.data()), entry.shape, *entry.dtype, Device::cpu(), file_);
}

Tensor TorchFile::read_box(const std::string& name, const Box& box) const {
  const SafetensorsEntry& entry = readable(name);
  check_box(box, entry.shape, path().string() + ": " + name);
  Tensor result = empty(shape_of(box), *entry.dtype);
  read_bytes(entry, box, {static_cast<std::byte*>(result.raw()), result.num_bytes()});
  return result;
}

void TorchFile::read_bytes(const SafetensorsEntry& entry, const Box& box, std::span<std::byte> to) const {
  const TorchTensor& t = tensor_of(entry);
  check_box(box, entry.shape, path().string() + ": " + entry.name);
  const auto size = static_cast<size_t>(t.element_bytes);
  check(to.size() == static_cast<uint64_t>(box.numel()) * size, path().string(), ": ", entry.name, ": ", to.size(),
        " bytes for ", box.numel(), " elements of ", size);
  if (to.empty()) return;
  check_storage(t.storage);
  const std::span<const std::byte> all = file_->bytes();
  if (t.row_major) {
    copy_box(all.subspan(entry.offset, entry.num_bytes), entry.shape, box, size, to);
  } else {
    // An odometer over all dimensions but the last, which is copied as a row.
    const int last = box.rank() - 1;  // a tensor without dimensions is row-major
    std::array<int64_t, Shape::kMaxRank> index{};
    std::byte* out = to.data();
    while (true) {
      uint64_t place = entry.offset;
      for (int d = 0; d <= last; ++d)
        place += static_cast<uint64_t>(box.start[d] + (d < last ? index[d] : 0)) * t.strides[d] * size;
      const uint64_t step = static_cast<uint64_t>(t.strides[last]) * size;
      for (int64_t i = 0; i < box.length[last]; ++i, out += size)
        std::memcpy(out, all.data() + place + static_cast<uint64_t>(i) * step, size);
      int d = last - 1;
      for (; d >= 0 && ++index[d] == box.length[d]; --d) index[d] = 0;
      if (d < 0) break;
    }
  }
  if (swapped_) swap_bytes(to, t.number_bytes);
}

void TorchFile::advise_done_with(const SafetensorsEntry& entry) const {
  if (entry.num_bytes == 0) return;
  const Storage& s = storages_[tensor_of(entry).storage];
  file_->advise_done_with(s.offset, s.num_bytes);
}

}  // namespace trireme
