// TensorBoard event files: TFRecords of protobuf messages tensorflow.Event (tensorflow/core/util/event.proto,
// tensorflow/core/framework/summary.proto), encoded by hand.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/append_file.h"

namespace trireme {

// CRC-32C (Castagnoli; RFC 3720, B.4).
uint32_t crc32c(std::string_view bytes);

// A record as TFRecord files hold it: u64 length, masked crc32c of those 8 bytes, the bytes, their masked
// crc32c; all little-endian. Masked: rotated right by 15 bits, plus 0xa282ead8.
std::string tfrecord(std::string_view bytes);

struct Scalar {
  std::string tag;  // "train/loss"
  double value;     // stored as f32
};

// Serialised Events. Wall times are seconds since 1970.
std::string scalars_event(double wall_time, int64_t step, const std::vector<Scalar>& scalars);
std::string file_version_event(double wall_time);  // "brain.Event:2", the first of a file
// A restart: readers forget what earlier files of the folder say of `step` and later ones.
std::string restart_event(double wall_time, int64_t step);

// A new file DIR/events.out.tfevents.TIME.HOST.PID; readers take all of a folder in the order of their names.
class EventFile {
 public:
  // The run goes on after resume_step (0: starts): what earlier files of the folder say of later steps is
  // void. Throws FileError.
  EventFile(const std::filesystem::path& dir, int64_t resume_step);

  // Flushed. Throws FileError; the file then ends with the record before.
  void write(int64_t step, const std::vector<Scalar>& scalars);

  const std::filesystem::path& path() const { return file_.path(); }

 private:
  AppendFile file_;
};

}  // namespace trireme
