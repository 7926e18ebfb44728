// The writer of model/safetensors.h.
#include <boost/json.hpp>

#include <cstring>

#include "base/json.h"
#include "base/utf8.h"
#include "model/safetensors.h"

namespace trireme {
namespace {

namespace json = boost::json;

void check_spec(const SafetensorsSpec& spec, uint64_t begin, const std::string& where) {
  check<FileError>(!spec.name.empty() && spec.name.size() <= SafetensorsFile::kMaxNameBytes &&
                       spec.name != "__metadata__" && spec.name.find('\0') == spec.name.npos && is_valid_utf8(spec.name),
                   where, ": \"", spec.name, "\" cannot be a tensor's name");
  check<FileError>(spec.element_bytes() > 0, where, ": ", spec.name, " is ", spec.file_dtype,
                   ", a type that safetensors files cannot hold");
  check<FileError>(begin % spec.element_bytes() == 0, where, ": the data of ", spec.name, " would begin at ", begin,
                   ", which is not a multiple of the ", spec.element_bytes(),
                   " bytes of its elements; put tensors of wider types first");
}

std::string header_of(const std::vector<SafetensorsSpec>& tensors,
                      const std::vector<std::pair<std::string, std::string>>& metadata, const std::string& where) {
  json::object header;
  if (!metadata.empty()) {
    json::object& m = header["__metadata__"].emplace_object();
    for (const auto& [key, value] : metadata) {
      check<FileError>(is_valid_utf8(key) && is_valid_utf8(value), where, ": metadata is not UTF-8");
      m[key] = value;
    }
  }
  uint64_t begin = 0;
  for (const SafetensorsSpec& spec : tensors) {
    check_spec(spec, begin, where);
    check<FileError>(!header.contains(spec.name), where, ": two tensors are called ", spec.name);
    uint64_t num_bytes = 0, end = 0;
    check<FileError>(
        !__builtin_mul_overflow(static_cast<uint64_t>(spec.shape.numel()), spec.element_bytes(), &num_bytes) &&
            !__builtin_add_overflow(begin, num_bytes, &end) && end <= static_cast<uint64_t>(JsonObject::kMax),
        where, ": ", spec.name, " ", spec.shape, " makes the file longer than 63 bits can count");
    json::object& o = header[spec.name].emplace_object();
    o["dtype"] = spec.file_dtype.empty() ? std::string(safetensors_name(spec.dtype)) : spec.file_dtype;
    o["shape"] = json::array(spec.shape.dims().begin(), spec.shape.dims().end());
    o["data_offsets"] = json::array{begin, end};
    begin = end;
  }
  std::string out = to_json(header);
  out.append((8 - out.size() % 8) % 8, ' ');
  check<FileError>(out.size() <= SafetensorsFile::kMaxHeaderBytes, where, ": the header would have ", out.size(),
                   " bytes; at most ", SafetensorsFile::kMaxHeaderBytes, " can be read");
  return out;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, std::vector<SafetensorsSpec> tensors,
                                     const std::vector<std::pair<std::string, std::string>>& metadata)
    : SafetensorsWriter(path, header_of(tensors, metadata, path.string()), std::move(tensors)) {}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, const std::string& header,
                                     std::vector<SafetensorsSpec>&& tensors)
    : file_(path), tensors_(std::move(tensors)) {
  const uint64_t length = header.size();
  file_.write(std::as_bytes(std::span(&length, 1)));
  file_.write(header);
  skip_complete();
}

void SafetensorsWriter::skip_complete() {
  while (current_ < tensors_.size() && written_ == tensors_[current_].num_bytes()) {
    ++current_;
    written_ = 0;
  }
}

void SafetensorsWriter::write(const std::string& name, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;  // tensors without elements have no turn
  check(current_ < tensors_.size(), file_.path().string(), ": data for ", name, ", but every tensor is complete");
  const SafetensorsSpec& spec = tensors_[current_];
  check(spec.name == name, file_.path().string(), ": data for ", name, " while ", spec.name, " has ", written_, " of ",
        spec.num_bytes(), " bytes");
  check(bytes.size() <= spec.num_bytes() - written_, file_.path().string(), ": ", bytes.size(), " bytes more for ", name,
        ", which has ", written_, " of ", spec.num_bytes());
  file_.write(bytes);
  written_ += bytes.size();
  skip_complete();
}

FileHash SafetensorsWriter::finish() {
  if (current_ < tensors_.size())
    throw ShapeError(text(file_.path().string(), ": ", tensors_[current_].name, " has ", written_, " of ",
                          tensors_[current_].num_bytes(), " bytes"));
  return file_.finish();
}

}  // namespace trireme
