#include "tests/trainer/event_reader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <stdexcept>
#include <string_view>

#include "base/files.h"

namespace trireme::testing {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxBytes = 1 << 20;

uint64_t little_endian(std::string_view bytes, size_t size) {
  uint64_t value = 0;
  for (size_t i = 0; i < size; ++i) value |= uint64_t{static_cast<uint8_t>(bytes.at(i))} << (8 * i);
  return value;
}

uint64_t take_varint(std::string_view& bytes) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<uint8_t>(bytes.at(0));
    bytes.remove_prefix(1);
    value |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return value;
  }
}

struct Field {
  uint64_t number = 0, integer = 0;  // integer: also the bits of fixed fields
  std::string_view bytes;
};

std::vector<Field> fields_of_message(std::string_view message) {
  std::vector<Field> fields;
  while (!message.empty()) {
    const uint64_t key = take_varint(message);
    Field field;
    field.number = key >> 3;
    size_t size = 0;
    switch (key & 7) {
      case 0: field.integer = take_varint(message); break;
      case 1: field.integer = little_endian(message, size = 8); break;
      case 2:
        size = take_varint(message);
        if (size > message.size()) throw std::out_of_range("length");
        field.bytes = message.substr(0, size);
        break;
      case 5: field.integer = little_endian(message, size = 4); break;
      default: throw std::runtime_error("wire type");
    }
    message.remove_prefix(size);
    fields.push_back(field);
  }
  return fields;
}

ParsedEvent parse_event(std::string_view message) {
  ParsedEvent event;
  for (const Field& f : fields_of_message(message)) {
    if (f.number == 1) event.wall_time = std::bit_cast<double>(f.integer);
    if (f.number == 2) event.step = static_cast<int64_t>(f.integer);
    if (f.number == 3) event.file_version = f.bytes;
    if (f.number == 7) event.session_status = static_cast<int64_t>(fields_of_message(f.bytes).at(0).integer);
    if (f.number != 5) continue;
    for (const Field& value : fields_of_message(f.bytes)) {
      const std::vector<Field> parts = fields_of_message(value.bytes);
      EXPECT_EQ(parts.at(0).number, 1u);
      EXPECT_EQ(parts.at(1).number, 2u);
      event.scalars[std::string(parts[0].bytes)] =
          std::bit_cast<float>(static_cast<uint32_t>(parts[1].integer));
    }
  }
  return event;
}

// Bit by bit, from the polynomial; to hold the table against.
uint32_t slow_masked_crc(std::string_view bytes) {
  uint32_t c = 0xffffffffu;
  for (const char byte : bytes) {
    c ^= static_cast<uint8_t>(byte);
    for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ (0x82f63b78u & (0u - (c & 1)));
  }
  c = ~c;
  return ((c >> 15) | (c << 17)) + 0xa282ead8u;
}

}  // namespace

std::vector<ParsedEvent> parse_event_file(const fs::path& path) {
  const std::string contents = read_text_file(path, kMaxBytes);
  std::string_view rest = contents;
  std::vector<ParsedEvent> events;
  while (!rest.empty()) {
    const uint64_t size = little_endian(rest, 8);
    EXPECT_EQ(little_endian(rest.substr(8), 4), slow_masked_crc(rest.substr(0, 8)));
    const std::string_view message = rest.substr(12, size);
    EXPECT_EQ(message.size(), size);
    EXPECT_EQ(little_endian(rest.substr(12 + size), 4), slow_masked_crc(message));
    events.push_back(parse_event(message));
    rest.remove_prefix(16 + size);
  }
  return events;
}

std::vector<fs::path> event_files(const fs::path& dir) {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(dir))
    if (entry.path().filename().string().starts_with("events.out.tfevents.")) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace trireme::testing
