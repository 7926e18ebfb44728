#include "base/zip_directory.h"

#include <gtest/gtest.h>


#include "base/crc32.h"
#include "base/error.h"
#include "tests/errors.h"

namespace trireme {
namespace {

using testing::message_of;

template <class T>
void put(std::string& out, T v) {
  out.append(reinterpret_cast<const char*>(&v), sizeof v);
}

struct File {
  std::string name, data;
  uint16_t method = 0, flags = 0;
};

// An archive, with the numbers of its directory in zip64 records if `wide`.
std::string archive(const std::vector<File>& files, bool wide = false, const std::string& comment = "") {
  std::string out, directory;
  for (const File& f : files) {
    const uint64_t local = out.size();
    const uint32_t crc = crc32(std::as_bytes(std::span(f.data.data(), f.data.size())));
    put(out, uint32_t{0x04034b50});
    for (const uint16_t v : {uint16_t{20}, f.flags, f.method, uint16_t{0}, uint16_t{0}}) put(out, v);
    put(out, crc);
    for (int i = 0; i < 2; ++i) put(out, static_cast<uint32_t>(f.data.size()));
    put(out, static_cast<uint16_t>(f.name.size()));
    put(out, uint16_t{5});  // an extra field, as torch pads with
    out += f.name + std::string("FB\x01\x00Z", 5) + f.data;

    std::string extra;
    if (wide) {
      put(extra, uint16_t{1});
      put(extra, uint16_t{24});
      for (const uint64_t v : {uint64_t{f.data.size()}, uint64_t{f.data.size()}, local}) put(extra, v);
    }
    put(directory, uint32_t{0x02014b50});
    for (const uint16_t v : {uint16_t{20}, uint16_t{20}, f.flags, f.method, uint16_t{0}, uint16_t{0}}) put(directory, v);
    put(directory, crc);
    for (int i = 0; i < 2; ++i) put(directory, wide ? 0xFFFFFFFFu : static_cast<uint32_t>(f.data.size()));
    put(directory, static_cast<uint16_t>(f.name.size()));
    put(directory, static_cast<uint16_t>(extra.size()));
    for (int i = 0; i < 3; ++i) put(directory, uint16_t{0});
    put(directory, uint32_t{0});
    put(directory, wide ? 0xFFFFFFFFu : static_cast<uint32_t>(local));
    directory += f.name + extra;
  }
  const uint64_t begin = out.size();
  out += directory;
  if (wide) {
    const uint64_t at = out.size();
    put(out, uint32_t{0x06064b50});
    put(out, uint64_t{44});
    put(out, uint32_t{0x002d002d});
    put(out, uint64_t{0});
    for (int i = 0; i < 2; ++i) put(out, uint64_t{files.size()});
    put(out, uint64_t{directory.size()});
    put(out, begin);
    put(out, uint32_t{0x07064b50});
    put(out, uint32_t{0});
    put(out, at);
    put(out, uint32_t{1});
  }
  put(out, uint32_t{0x06054b50});
  put(out, uint32_t{0});
  for (int i = 0; i < 2; ++i) put(out, wide ? uint16_t{0xFFFF} : static_cast<uint16_t>(files.size()));
  put(out, wide ? 0xFFFFFFFFu : static_cast<uint32_t>(directory.size()));
  put(out, wide ? 0xFFFFFFFFu : static_cast<uint32_t>(begin));
  put(out, static_cast<uint16_t>(comment.size()));
  return out + comment;
}

std::vector<ZipEntry> read(const std::string& zip) {
  return read_zip_directory(std::as_bytes(std::span(zip.data(), zip.size())), "x.zip");
}
std::string error(const std::string& zip) { return message_of<FileError>([&] { read(zip); }); }
std::string replaced(std::string s, size_t at, const std::string& by) { return s.replace(at, by.size(), by); }

const std::vector<File> kTwo = {{"m/a", "hello"}, {"m/b", "of the world"}};

TEST(ZipDirectory, FindsEachFilesBytes) {
  for (const bool wide : {false, true})
    for (const std::string comment : {"", "PK\x05\x06 a comment"}) {
      const std::string zip = archive(kTwo, wide, comment);
      const std::vector<ZipEntry> entries = read(zip);
      ASSERT_EQ(entries.size(), 2u);
      for (size_t i = 0; i < 2; ++i) {
        EXPECT_EQ(entries[i].name, kTwo[i].name);
        EXPECT_EQ(zip.substr(entries[i].offset, entries[i].num_bytes), kTwo[i].data);
        EXPECT_EQ(entries[i].crc, crc32(std::as_bytes(std::span(kTwo[i].data.data(), kTwo[i].data.size()))));
      }
    }
  EXPECT_TRUE(read(archive({})).empty());
}

TEST(ZipDirectory, RefusesByNameWhatIsNotStoredAsItIs) {
  const auto stored = [](uint16_t method) {
    return message_of<FileError>([&] { require_stored(read(archive({{"m/a", "x", method}}))[0], "x.zip"); });
  };
  EXPECT_EQ(stored(0), "no error");
  EXPECT_EQ(stored(8), "x.zip: m/a is compressed (deflate); torch.save stores files as they are");
  EXPECT_EQ(stored(99), "x.zip: m/a is compressed (method 99); torch.save stores files as they are");
  EXPECT_EQ(error(archive({{"m/a", "x", 0, 1}})), "x.zip: m/a is encrypted");
  EXPECT_EQ(error(archive({{"m/a", "x"}, {"m/a", "y"}})), "x.zip: holds two files called m/a");
  EXPECT_EQ(error(archive({{"m/\n", "x"}})), "x.zip: the name of entry 0 of the directory has control characters");
}

TEST(ZipDirectory, RefusesNumbersThatCannotBe) {
  const std::string zip = archive(kTwo);  // files of 30 + 3 + 5 + 5 and 30 + 3 + 5 + 12 bytes, then the directory at 93
  const size_t end = zip.size() - 22;
  EXPECT_EQ(error("PK"), "x.zip: has 2 bytes, too few for a zip archive");
  EXPECT_EQ(error(std::string(50, 'x')), "x.zip: a zip archive without its directory at the end; is it cut off?");
  EXPECT_EQ(error(zip + "x"), "x.zip: a zip archive without its directory at the end; is it cut off?");
  EXPECT_EQ(error(replaced(zip, end + 16, "\x70")), "x.zip: the directory is to have 98 bytes from 112 on, but ends at 191");
  EXPECT_EQ(error(replaced(zip, end + 10, "\x03")), "x.zip: the directory is to list 3 files in 98 bytes");
  EXPECT_EQ(error(replaced(zip, 93, "x")), "x.zip: entry 0 of the directory, at 93, is damaged");
  EXPECT_EQ(error(replaced(zip, 0, "x")), "x.zip: m/a is not at 0, where the directory has it");
  EXPECT_EQ(error(replaced(zip, 32, "x")), "x.zip: m/a has another header at 0 than in the directory");
  EXPECT_EQ(error(replaced(zip, 93 + 24, "\x06")), "x.zip: m/a is stored in 5 bytes, but has 6");
  // Of the first file: longer than up to the second, and than up to the directory.
  EXPECT_EQ(error(replaced(replaced(zip, 93 + 20, "\x06"), 93 + 24, "\x06")), "x.zip: m/b begins inside m/a");
  EXPECT_EQ(error(replaced(replaced(zip, 93 + 20, "\x7f"), 93 + 24, "\x7f")),
            "x.zip: m/a is to have 127 bytes from 38 on, beyond the end of the files at 93");
  const std::string wide = archive(kTwo, true);
  EXPECT_EQ(error(wide.substr(0, wide.size() - 42) + wide.substr(wide.size() - 22)), "x.zip: the zip64 record is missing");
  EXPECT_EQ(error(replaced(wide, wide.size() - 22 - 20 + 8, "\x01")),
            "x.zip: the zip64 record is not at 1, where its locator has it");
}

TEST(ZipDirectory, NoCutAndNoFlippedByteDoesHarm) {
  for (const bool wide : {false, true}) {
    const std::string zip = archive(kTwo, wide);
    for (size_t cut = 0; cut < zip.size(); ++cut)
      EXPECT_THROW(read(zip.substr(0, cut)),
                   FileError);
    for (size_t i = 0; i < zip.size(); ++i)
      for (const int bit : {1, 0x10, 0x80, 0xFF}) {
        std::string changed = zip;
        changed[i] = static_cast<char>(changed[i] ^ bit);
        try {
          for (const ZipEntry& e : read(changed)) EXPECT_LE(e.offset + e.num_bytes, changed.size());
        } catch (const FileError&) {
        }
      }
  }
}

}  // namespace
}  // namespace trireme
