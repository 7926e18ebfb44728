#include "base/zip_directory.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <unordered_set>

#include "base/error.h"

namespace trireme {
namespace {

constexpr uint32_t kLocalHeader = 0x04034b50, kDirectoryHeader = 0x02014b50, kEnd = 0x06054b50, kEnd64 = 0x06064b50,
                   kEnd64Locator = 0x07064b50;
constexpr size_t kLocalBytes = 30, kDirectoryBytes = 46, kEndBytes = 22, kEnd64Bytes = 56, kLocatorBytes = 20;
constexpr uint32_t kElsewhere32 = 0xFFFFFFFF;  // the number is in a zip64 record
constexpr uint16_t kElsewhere16 = 0xFFFF;

// Numbers of an archive, all little-endian, with every place checked.
class Bytes {
 public:
  Bytes(std::span<const std::byte> bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  template <class T>
  T number(uint64_t at) const {
    require(at, sizeof(T));
    T v;
    std::memcpy(&v, bytes_.data() + at, sizeof(T));
    return v;
  }
  std::string_view chars(uint64_t at, size_t length) const {
    require(at, length);
    return {reinterpret_cast<const char*>(bytes_.data()) + at, length};
  }
  void require(uint64_t at, uint64_t length) const {
    check<FileError>(at <= bytes_.size() && length <= bytes_.size() - at, where_, ": a record of ", length,
                     " bytes would stand at ", at, " of ", bytes_.size(), "; is the archive cut off?");
  }
  uint64_t size() const { return bytes_.size(); }
  const std::string& where() const { return where_; }

 private:
  std::span<const std::byte> bytes_;
  const std::string& where_;
};

struct Directory {
  uint64_t begin = 0, end = 0, entries = 0;
};

uint64_t find_end(const Bytes& in) {
  constexpr uint64_t kLongestComment = 0xFFFF;
  check<FileError>(in.size() >= kEndBytes, in.where(), ": has ", in.size(), " bytes, too few for a zip archive");
  const uint64_t last = in.size() - kEndBytes, first = last - std::min(last, kLongestComment);
  for (uint64_t at = last + 1; at-- > first;)
    if (in.number<uint32_t>(at) == kEnd && at + kEndBytes + in.number<uint16_t>(at + 20) == in.size()) return at;
  throw FileError(text(in.where(), ": a zip archive without its directory at the end; is it cut off?"));
}

Directory find_directory(const Bytes& in) {
  const uint64_t end = find_end(in);
  const auto disk = in.number<uint16_t>(end + 4);
  Directory d;
  d.entries = in.number<uint16_t>(end + 10);
  uint64_t size = in.number<uint32_t>(end + 12);
  d.begin = in.number<uint32_t>(end + 16);
  uint64_t limit = end;
  const bool wide = d.entries == kElsewhere16 || size == kElsewhere32 || d.begin == kElsewhere32;
  if (end >= kLocatorBytes && in.number<uint32_t>(end - kLocatorBytes) == kEnd64Locator) {
    const auto at = in.number<uint64_t>(end - kLocatorBytes + 8);
    check<FileError>(at <= end - kLocatorBytes && end - kLocatorBytes - at >= kEnd64Bytes &&
                         in.number<uint32_t>(at) == kEnd64,
                     in.where(), ": the zip64 record is not at ", at, ", where its locator has it");
    d.entries = in.number<uint64_t>(at + 32);
    size = in.number<uint64_t>(at + 40);
    d.begin = in.number<uint64_t>(at + 48);
    limit = at;
  } else {
    check<FileError>(!wide, in.where(), ": the zip64 record is missing");
  }
  check<FileError>(disk == 0 || disk == kElsewhere16, in.where(), ": is one part of several of a zip archive");
  check<FileError>(d.begin <= limit && size == limit - d.begin, in.where(), ": the directory is to have ", size,
                   " bytes from ", d.begin, " on, but ends at ", limit);
  check<FileError>(d.entries <= size / kDirectoryBytes, in.where(), ": the directory is to list ", d.entries,
                   " files in ", size, " bytes");
  d.end = limit;
  return d;
}

std::string name_of_method(uint16_t method) {
  switch (method) {
    case 8: return "deflate";
    case 9: return "deflate64";
    case 12: return "bzip2";
    case 14: return "LZMA";
    case 93: return "zstd";
    case 95: return "xz";
    default: return text("method ", method);
  }
}

// Sizes and offset that stand in the extra field, in this order, where the header's own say so.
void read_wide_numbers(const Bytes& in, uint64_t extra, uint64_t end, const std::vector<uint64_t*>& wanted,
                       const std::string& name) {
  if (wanted.size() == 0) return;
  while (end - extra >= 4) {
    const auto id = in.number<uint16_t>(extra), length = in.number<uint16_t>(extra + 2);
    extra += 4;
    check<FileError>(length <= end - extra, in.where(), ": the extra field of ", name, " is damaged");
    if (id == 1) {
      check<FileError>(length >= 8 * wanted.size(), in.where(), ": the zip64 field of ", name, " is too short");
      for (uint64_t* number : wanted) {
        *number = in.number<uint64_t>(extra);
        extra += 8;
      }
      return;
    }
    extra += length;
  }
  throw FileError(text(in.where(), ": the zip64 field of ", name, " is missing"));
}

}  // namespace

void require_stored(const ZipEntry& entry, const std::string& where) {
  check<FileError>(entry.method == 0, where, ": ", entry.name, " is compressed (", name_of_method(entry.method),
                   "); torch.save stores files as they are");
}

std::vector<ZipEntry> read_zip_directory(std::span<const std::byte> bytes, const std::string& where) {
  const Bytes in(bytes, where);
  const Directory directory = find_directory(in);
  std::vector<ZipEntry> entries;
  std::unordered_set<std::string> names;
  struct Extent {
    uint64_t begin, end;
    size_t entry;
  };
  std::vector<Extent> extents;
  uint64_t at = directory.begin;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    check<FileError>(directory.end - at >= kDirectoryBytes && in.number<uint32_t>(at) == kDirectoryHeader, where,
                     ": entry ", i, " of the directory, at ", at, ", is damaged");
    const auto flags = in.number<uint16_t>(at + 8), method = in.number<uint16_t>(at + 10);
    const uint64_t name_bytes = in.number<uint16_t>(at + 28), extra_bytes = in.number<uint16_t>(at + 30),
                   comment_bytes = in.number<uint16_t>(at + 32);
    const uint64_t rest = name_bytes + extra_bytes + comment_bytes;
    check<FileError>(rest <= directory.end - at - kDirectoryBytes, where, ": entry ", i, " of the directory, at ", at,
                     ", reaches beyond it");
    ZipEntry entry;
    entry.name = in.chars(at + kDirectoryBytes, name_bytes);
    entry.crc = in.number<uint32_t>(at + 16);
    uint64_t stored = in.number<uint32_t>(at + 20), local = in.number<uint32_t>(at + 42);
    entry.num_bytes = in.number<uint32_t>(at + 24);
    const uint64_t extra = at + kDirectoryBytes + name_bytes;
    // The field holds those alone whose place in the header says so.
    std::vector<uint64_t*> wide;
    if (entry.num_bytes == kElsewhere32) wide.push_back(&entry.num_bytes);
    if (stored == kElsewhere32) wide.push_back(&stored);
    if (local == kElsewhere32) wide.push_back(&local);
    read_wide_numbers(in, extra, extra + extra_bytes, wide, entry.name);
    at += kDirectoryBytes + rest;

    check<FileError>(std::all_of(entry.name.begin(), entry.name.end(),
                                 [](unsigned char c) { return c >= 0x20 && c != 0x7F; }),
                     where, ": the name of entry ", i, " of the directory has control characters");
    check<FileError>(names.insert(entry.name).second, where, ": holds two files called ", entry.name);
    check<FileError>((flags & 1) == 0, where, ": ", entry.name, " is encrypted");
    entry.method = method;
    check<FileError>(method != 0 || stored == entry.num_bytes, where, ": ", entry.name, " is stored in ", stored,
                     " bytes, but has ", entry.num_bytes);
    entry.num_bytes = stored;
    in.require(local, kLocalBytes);
    check<FileError>(in.number<uint32_t>(local) == kLocalHeader, where, ": ", entry.name, " is not at ", local,
                     ", where the directory has it");
    const uint64_t local_name = in.number<uint16_t>(local + 26);
    check<FileError>(in.chars(local + kLocalBytes, local_name) == entry.name && in.number<uint16_t>(local + 8) == method,
                     where, ": ", entry.name, " has another header at ", local, " than in the directory");
    entry.offset = local + kLocalBytes + local_name + in.number<uint16_t>(local + 28);
    check<FileError>(entry.offset <= directory.begin && entry.num_bytes <= directory.begin - entry.offset, where, ": ",
                     entry.name, " is to have ", entry.num_bytes, " bytes from ", entry.offset,
                     " on, beyond the end of the files at ", directory.begin);
    extents.push_back({local, entry.offset + entry.num_bytes, entries.size()});
    entries.push_back(std::move(entry));
  }
  check<FileError>(at == directory.end, where, ": the directory has ", directory.end - at, " bytes after its last entry");
  std::sort(extents.begin(), extents.end(), [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < extents.size(); ++i)
    check<FileError>(extents[i].begin >= extents[i - 1].end, where, ": ", entries[extents[i].entry].name, " begins inside ",
                     entries[extents[i - 1].entry].name);
  return entries;
}

}  // namespace trireme
