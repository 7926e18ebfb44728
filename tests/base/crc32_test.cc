#include "base/crc32.h"

#include <gtest/gtest.h>

#include <string_view>
#include <vector>

namespace trireme {
namespace {

std::span<const std::byte> bytes_of(std::string_view s) { return std::as_bytes(std::span(s.data(), s.size())); }

TEST(Crc32, IsThatOfZip) {
  EXPECT_EQ(crc32(bytes_of("")), 0u);
  EXPECT_EQ(crc32(bytes_of("a")), 0xE8B7BE43u);
  EXPECT_EQ(crc32(bytes_of("123456789")), 0xCBF43926u);
  EXPECT_EQ(crc32(bytes_of("The quick brown fox jumps over the lazy dog")), 0x414FA339u);
}

TEST(Crc32, GoesOnWherePartsWereCut) {
  std::vector<std::byte> data;
  for (int i = 0; i < 100; ++i) data.push_back(static_cast<std::byte>(i * 37 + 11));
  const std::span<const std::byte> all(data);
  for (size_t cut = 0; cut <= all.size(); ++cut) EXPECT_EQ(crc32(all.subspan(cut), crc32(all.first(cut))), crc32(all)) << cut;
}

}  // namespace
}  // namespace trireme
