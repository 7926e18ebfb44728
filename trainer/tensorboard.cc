#include "trainer/tensorboard.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <chrono>

namespace trireme {
namespace {

constexpr std::array<uint32_t, 256> kCrcTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c & 1) ? (c >> 1) ^ 0x82f63b78u : c >> 1;
    table[i] = c;
  }
  return table;
}();

template <class T>
void put_little_endian(std::string& out, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) out.push_back(static_cast<char>(value >> (8 * i)));
}

uint32_t masked_crc(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xa282ead8u; }

// Protobuf's wire format: a field is varint(number << 3 | type), then its value.
enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

void put_key(std::string& out, uint32_t field, WireType type) { put_varint(out, field << 3 | type); }

void put_integer(std::string& out, uint32_t field, int64_t value) {
  put_key(out, field, kVarint);
  put_varint(out, static_cast<uint64_t>(value));
}

void put_double(std::string& out, uint32_t field, double value) {
  put_key(out, field, kFixed64);
  put_little_endian(out, std::bit_cast<uint64_t>(value));
}

void put_float(std::string& out, uint32_t field, float value) {
  put_key(out, field, kFixed32);
  put_little_endian(out, std::bit_cast<uint32_t>(value));
}

void put_bytes(std::string& out, uint32_t field, std::string_view value) {
  put_key(out, field, kBytes);
  put_varint(out, value.size());
  out += value;
}

// Field numbers of Event, Summary, Summary.Value and SessionLog.
constexpr uint32_t kEventWallTime = 1, kEventStep = 2, kEventFileVersion = 3, kEventSummary = 5,
                   kEventSessionLog = 7;
constexpr uint32_t kSummaryValue = 1, kValueTag = 1, kValueSimpleValue = 2, kSessionLogStatus = 1;
constexpr int64_t kSessionStart = 1;

double wall_time_now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

AppendFile new_event_file(const std::filesystem::path& dir) {
  char host[256] = {};
  if (gethostname(host, sizeof host - 1) != 0 || !host[0]) host[0] = '_';
  const auto seconds = static_cast<int64_t>(wall_time_now());
  const std::string name = text("events.out.tfevents.", seconds, '.', host, '.', getpid());
  // Two of one process in one second differ by a further number.
  std::filesystem::path path = dir / name;
  for (int i = 1; std::filesystem::exists(path); ++i) path = dir / text(name, '.', i);
  return AppendFile(path, AppendFile::Open::kNew);
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t c = ~0u;
  for (const char byte : bytes) c = kCrcTable[(c ^ static_cast<uint8_t>(byte)) & 0xff] ^ (c >> 8);
  return ~c;
}

std::string tfrecord(std::string_view bytes) {
  std::string out;
  put_little_endian(out, static_cast<uint64_t>(bytes.size()));
  put_little_endian(out, masked_crc(out));
  out += bytes;
  put_little_endian(out, masked_crc(bytes));
  return out;
}

std::string scalars_event(double wall_time, int64_t step, const std::vector<Scalar>& scalars) {
  std::string summary;
  for (const Scalar& scalar : scalars) {
    std::string value;
    put_bytes(value, kValueTag, scalar.tag);
    put_float(value, kValueSimpleValue, static_cast<float>(scalar.value));
    put_bytes(summary, kSummaryValue, value);
  }
  std::string event;
  put_double(event, kEventWallTime, wall_time);
  put_integer(event, kEventStep, step);
  put_bytes(event, kEventSummary, summary);
  return event;
}

std::string file_version_event(double wall_time) {
  std::string event;
  put_double(event, kEventWallTime, wall_time);
  put_bytes(event, kEventFileVersion, "brain.Event:2");
  return event;
}

std::string restart_event(double wall_time, int64_t step) {
  std::string log;
  put_integer(log, kSessionLogStatus, kSessionStart);
  std::string event;
  put_double(event, kEventWallTime, wall_time);
  put_integer(event, kEventStep, step);
  put_bytes(event, kEventSessionLog, log);
  return event;
}

EventFile::EventFile(const std::filesystem::path& dir, int64_t resume_step) : file_(new_event_file(dir)) {
  const double now = wall_time_now();
  file_.append(tfrecord(file_version_event(now)));
  file_.append(tfrecord(restart_event(now, resume_step + 1)));
}

void EventFile::write(int64_t step, const std::vector<Scalar>& scalars) {
  file_.append(tfrecord(scalars_event(wall_time_now(), step, scalars)));
}

}  // namespace trireme
