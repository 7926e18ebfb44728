// Paths of test data. Fixtures are part of the project; sample data may stand beside the checkout (../shared/data, or
// the folder that TRIREME_TEST_DATA names), and tests that need it skip where it is absent.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace trireme::testing {

inline std::filesystem::path fixture(const std::string& name) {
  return std::filesystem::path(TRIREME_SOURCE_DIR) / "tests" / "fixtures" / name;
}

inline std::filesystem::path sample_data(const std::string& name) {
  if (const char* root = std::getenv("TRIREME_TEST_DATA")) return std::filesystem::path(root) / name;
  return std::filesystem::path(TRIREME_SOURCE_DIR).parent_path() / "shared" / "data" / name;
}

// A fresh, empty folder for one test, removed with the object.
class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "trireme-test-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace trireme::testing

#define TRIREME_SKIP_WITHOUT(path) \
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "needs " << (path) << ", which is not there"
