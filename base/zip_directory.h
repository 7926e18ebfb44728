// Where the files of a zip archive stand in it (PKWARE's APPNOTE.TXT 6.3, zip64 too), for archives that store them as they
// are: what torch.save writes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace trireme {

struct ZipEntry {
  std::string name;
  uint64_t offset = 0, num_bytes = 0;  // of its data in the archive
  uint16_t method = 0;                 // 0: stored as it is; else compressed, which nothing here undoes
  uint32_t crc = 0;                    // crc32() of the data, by the archive; not compared here
};

// The files of the archive that is all of `bytes`, in the order of its directory. Throws FileError naming `where` and what is
// wrong: no archive or a damaged one, one in several parts, a file that is encrypted, two files of one name, data that lie
// outside the archive or in each other's.
std::vector<ZipEntry> read_zip_directory(std::span<const std::byte> bytes, const std::string& where);

// Throws FileError "where: NAME is compressed (deflate); ..." unless the file is stored as it is.
void require_stored(const ZipEntry& entry, const std::string& where);

}  // namespace trireme
