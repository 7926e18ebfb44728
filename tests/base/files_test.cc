#include "base/files.h"

#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <functional>
#include <random>

#include "base/mapped_file.h"
#include "tests/errors.h"
#include "tests/test_data.h"

namespace trireme {
namespace {

using testing::TempDir;

std::string error_of(const std::function<void()>& f) { return testing::message_of<FileError>(f); }

std::string random_bytes(size_t size, int seed) {
  std::mt19937 random(seed);
  std::string out(size, '\0');
  for (char& c : out) c = static_cast<char>(random());
  return out;
}

TEST(Files, ReadsUpToTheLimitOnly) {
  TempDir dir;
  const auto path = dir.path() / "f";
  write_file_atomically(path, "hello");
  EXPECT_EQ(read_text_file(path, 5), "hello");
  EXPECT_EQ(error_of([&] { read_text_file(path, 4); }), path.string() + ": has 5 bytes; at most 4 are accepted");
  EXPECT_FALSE(read_text_file("/proc/self/status", 1 << 20).empty());  // says that its size is 0
}

TEST(Files, ErrorsNameThePathAndTheReason) {
  TempDir dir;
  const std::string missing = (dir.path() / "missing").string();
  EXPECT_EQ(error_of([&] { read_text_file(missing, 9); }), missing + ": cannot open: No such file or directory");
  EXPECT_EQ(error_of([&] { MappedFile::open(missing); }), missing + ": cannot open: No such file or directory");
  EXPECT_EQ(error_of([&] { FileWriter(missing + "/x"); }), missing + "/x: cannot create: No such file or directory");
  EXPECT_EQ(error_of([&] { read_text_file(dir.path(), 9); }), dir.path().string() + ": is a folder, not a file");
  EXPECT_EQ(error_of([&] { free_space(missing); }), missing + ": cannot find the free space: No such file or directory");
  const auto pipe = dir.path() / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(error_of([&] { read_text_file(pipe, 9); }), pipe.string() + ": is a device or pipe, not a file");
}

TEST(Files, AtomicWriteReplacesAndLeavesNoTemporary) {
  TempDir dir;
  const auto path = dir.path() / "f";
  write_file_atomically(path, "old");
  write_file_atomically(path, "new, longer");
  EXPECT_EQ(read_text_file(path, 100), "new, longer");
  EXPECT_FALSE(std::filesystem::exists(path.string() + ".tmp"));
}

TEST(Files, FailedAtomicWriteKeepsTheOldFile) {
  TempDir dir;
  const auto path = dir.path() / "f";
  std::filesystem::create_directory(path);  // rename over a folder fails
  EXPECT_EQ(error_of([&] { write_file_atomically(path, "x"); }), path.string() + ": cannot rename to: Is a directory");
  EXPECT_TRUE(std::filesystem::is_directory(path));
  EXPECT_FALSE(std::filesystem::exists(path.string() + ".tmp"));
}

TEST(FileWriter, HashesWhatItWritesHoweverItIsCut) {
  TempDir dir;
  const auto path = dir.path() / "f";
  const std::string bytes = random_bytes(5'000'003, 3);
  std::mt19937 random(4);
  FileWriter writer(path);
  for (size_t at = 0; at < bytes.size();) {
    const size_t n = std::min<size_t>(random() % (random() % 8 ? 4000 : 2'500'000), bytes.size() - at);
    writer.write(std::string_view(bytes).substr(at, n));
    at += n;
  }
  EXPECT_EQ(writer.bytes_written(), bytes.size());
  const FileHash hash = writer.finish();
  EXPECT_EQ(read_text_file(path, bytes.size()), bytes);
  EXPECT_EQ(hash, hash_bytes(std::as_bytes(std::span(bytes.data(), bytes.size()))));
  EXPECT_EQ(hash, hash_file(path));
  EXPECT_EQ(FileHash::from_hex(hash.hex()), hash);
}

TEST(FileHash, IsXxh3Of128Bits) {
  // From the test vectors of the XXH3 specification: the empty input with seed 0.
  EXPECT_EQ(hash_bytes({}).hex(), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(error_of([] { FileHash::from_hex("99AA"); }),
            "a file hash is \"99AA\"; it must be 32 lower-case hexadecimal digits");
}

TEST(FileWriter, ReportsAFullDisk) {
  TRIREME_SKIP_WITHOUT("/dev/full");
  FileWriter writer("/dev/full");
  writer.write("x");  // buffered
  EXPECT_EQ(error_of([&] { writer.finish(); }), "/dev/full: cannot write: No space left on device");
  FileWriter large("/dev/full");
  const std::string bytes = random_bytes(3 << 20, 1);
  EXPECT_EQ(error_of([&] { large.write(bytes); }), "/dev/full: cannot write: No space left on device");
}

TEST(FileWriter, ReportsTheLimitOfFileSizeAndLeavesThePartialFile) {
  TempDir dir;
  const auto path = dir.path() / "f";
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  rlimit limit = old_limit;
  limit.rlim_cur = 10000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  const std::string error = error_of([&] {
    FileWriter writer(path);
    writer.write(random_bytes(20000, 1));
    writer.finish();
  });
  setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(error, path.string() + ": cannot write: File too large");
  EXPECT_EQ(std::filesystem::file_size(path), 10000u);
}

TEST(MappedFile, ShowsTheBytesAndSurvivesMovesAndHints) {
  TempDir dir;
  const auto path = dir.path() / "f";
  const std::string bytes = random_bytes(20'001, 7);
  write_file_atomically(path, bytes);
  MappedFile a = MappedFile::open(path);
  MappedFile b = std::move(a);
  EXPECT_EQ(a.size(), 0u);
  b.advise_sequential();
  b.advise_will_need(5000, 100);
  b.advise_done_with(4097);
  b.advise_random(1 << 30);
  ASSERT_EQ(b.size(), bytes.size());
  EXPECT_EQ(std::memcmp(b.bytes().data(), bytes.data(), bytes.size()), 0);
  EXPECT_EQ(b.path(), path);
}

TEST(MappedFile, OfAnEmptyFileIsEmpty) {
  TempDir dir;
  write_file_atomically(dir.path() / "f", "");
  EXPECT_TRUE(MappedFile::open(dir.path() / "f").bytes().empty());
}

TEST(Files, FreeSpaceIsPositive) {
  TempDir dir;
  EXPECT_GT(free_space(dir.path()), 0u);
}

}  // namespace
}  // namespace trireme
