#include "model/convert.h"

#include <boost/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <unordered_map>

#include "base/json.h"
#include "base/mapped_file.h"
#include "model/copy_box.h"
#include "model/hf_directory.h"
#include "model/weight_files.h"
#include "model/weight_names.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

constexpr int64_t kPieceElements = 4 << 20;  // converted at a time
constexpr size_t kMaxConfigBytes = 64 << 20;

// Weights in any program's form; what stands beside the model in a checkpoint of ours.
constexpr std::string_view kWeightEndings[] = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx",
                                               ".gguf", ".ggml", ".tflite", ".ot", ".npz", ".pkl", ".pickle",
                                               ".index.json", ".tmp"};
constexpr std::string_view kNotOfTheModel[] = {"state.json", "manifest.json", "run.yaml", "tuning.txt"};

bool is_copied(const std::string& name) {
  if (name.starts_with('.') || name == "config.json") return false;
  for (const std::string_view other : kNotOfTheModel)
    if (name == other) return false;
  for (const std::string_view ending : kWeightEndings)
    if (name.ends_with(ending)) return false;
  return true;
}

const char* config_name(DType t) { return t == DType::kF32 ? "float32" : t == DType::kBF16 ? "bfloat16" : "float16"; }

// The text of config.json, changed only where it names another type.
std::string config_text(const fs::path& path, std::optional<DType> dtype) {
  std::string contents = read_text_file(path, kMaxConfigBytes);
  json::value document = parse_json(contents, path.string());
  check<FileError>(document.is_object(), path.string(), ": is ", describe(document), "; a model's config is an object");
  if (!dtype) return contents;
  bool changed = false;
  for (const char* key : {"torch_dtype", "dtype"})
    if (json::value* said = document.get_object().if_contains(key); said && *said != config_name(*dtype)) {
      *said = config_name(*dtype);
      changed = true;
    }
  return changed ? to_json(document, JsonLayout::kIndented) : contents;
}

void copy_contents(const fs::path& from, const fs::path& to) {
  const MappedFile source = MappedFile::open(from);
  FileWriter writer(to);
  writer.write(source.bytes());
  writer.finish();
}

// Calls fn with boxes of at most kPieceElements elements that together are `shape` in row-major order.
void for_each_piece(const Shape& shape, const std::function<void(const Box&)>& fn) {
  if (shape.numel() == 0) return;
  Box box = whole(shape);
  // The first dim whose slices of one index fit; those before it are gone through one by one.
  int cut = 0;
  int64_t slice = shape.numel();
  for (; cut < shape.rank(); ++cut) {
    slice /= shape[cut];
    if (slice <= kPieceElements) break;
  }
  if (cut == shape.rank()) return fn(box);  // no dims
  for (int d = 0; d < cut; ++d) box.length[d] = 1;
  const int64_t step = std::max<int64_t>(1, kPieceElements / slice);
  while (true) {
    for (box.start[cut] = 0; box.start[cut] < shape[cut]; box.start[cut] += step) {
      box.length[cut] = std::min(step, shape[cut] - box.start[cut]);
      fn(box);
    }
    int d = cut - 1;
    for (; d >= 0 && ++box.start[d] == shape[d]; --d) box.start[d] = 0;
    if (d < 0) return;
  }
}

class Conversion {
 public:
  Conversion(const fs::path& from, const ConvertOptions& options)
      : options_(options), source_(WeightSource::open(from, options.part)) {
    for (const std::string& name : source_.names()) plan(name);
  }

  const std::vector<SafetensorsSpec>& tensors() const { return tensors_; }
  size_t renamed() const { return renamed_; }
  uint64_t num_bytes() const { return total_; }

  void produce(const SafetensorsSpec& tensor, const std::function<void(std::span<const std::byte>)>& write) {
    const std::string& name = names_.at(tensor.name);
    const WeightInfo info = source_.info(name);
    const bool same = !converts(info) || info.dtype == options_.dtype;
    for_each_piece(info.shape, [&](const Box& box) {
      const std::vector<std::byte> bytes = same ? read(name, info, box) : converted(name, info, box);
      write(bytes);
      done_ += bytes.size();
      if (options_.progress) options_.progress(done_, total_);
    });
    source_.advise_done_with(name);
  }

 private:
  bool converts(const WeightInfo& info) const {
    return options_.dtype && ((info.dtype && is_float(*info.dtype)) || info.file_dtype == "F64");
  }

  void plan(const std::string& name) {
    const WeightInfo info = source_.info(name);
    check<FileError>(!options_.dtype || !info.file_dtype.starts_with("F8_"), info.file.string(), ": ", name, " is ",
                     info.file_dtype, ", which does not convert to ", *options_.dtype);
    SafetensorsSpec spec{options_.old_names ? with_old_ending(name) : with_new_ending(name), DType::kF32, info.shape};
    if (converts(info))
      spec.dtype = *options_.dtype;
    else if (info.dtype)
      spec.dtype = *info.dtype;
    else
      spec.file_dtype = info.file_dtype;
    const auto [it, fresh] = names_.emplace(spec.name, name);
    check<FileError>(fresh, source_.path().string(), ": ", it->second, " and ", name, " would both be called ", spec.name);
    renamed_ += spec.name != name;
    total_ += spec.num_bytes();
    tensors_.push_back(std::move(spec));
  }

  std::vector<std::byte> read(const std::string& name, const WeightInfo& info, const Box& box) const {
    std::vector<std::byte> bytes(static_cast<size_t>(box.numel()) * safetensors_element_bytes(info.file_dtype));
    source_.read_bytes(name, box, bytes);
    return bytes;
  }

  std::vector<std::byte> converted(const std::string& name, const WeightInfo& info, const Box& box) const {
    const Tensor f32 = source_.read_box(name, box, DType::kF32);
    const DType dtype = *options_.dtype;
    const Tensor result = dtype == DType::kF32 ? f32 : cast(f32, dtype);
    const Tensor back = dtype == DType::kF32 ? f32 : cast(result, DType::kF32);
    const std::vector<std::byte> f64 = info.file_dtype == "F64" ? read(name, info, box) : std::vector<std::byte>();
    for (int64_t i = 0; i < box.numel(); ++i) {
      if (!std::isinf(back.span<float>()[i])) continue;
      double v = f32.span<float>()[i];
      if (!f64.empty()) std::memcpy(&v, f64.data() + 8 * i, 8);
      check<FileError>(std::isinf(v), info.file.string(), ": element ", place(info.shape, box, i), " of ", name, " is ", v,
                       ", beyond what ", dtype, " can hold");
    }
    std::vector<std::byte> bytes(result.num_bytes());
    std::memcpy(bytes.data(), result.raw(), bytes.size());
    return bytes;
  }

  // Element i of a box, counted in the whole tensor.
  static int64_t place(const Shape& shape, const Box& box, int64_t i) {
    int64_t in_tensor = 0, stride = 1;
    for (int d = shape.rank() - 1; d >= 0; --d) {
      in_tensor += (box.start[d] + i % box.length[d]) * stride;
      i /= box.length[d];
      stride *= shape[d];
    }
    return in_tensor;
  }

  const ConvertOptions& options_;
  WeightSource source_;
  std::vector<SafetensorsSpec> tensors_;
  std::unordered_map<std::string, std::string> names_;  // by the new one
  size_t renamed_ = 0;
  uint64_t total_ = 0, done_ = 0;
};

// Without a slash at its end, which would hide the last name.
fs::path plain(const fs::path& path) {
  const fs::path p = fs::absolute(path).lexically_normal();
  return p.has_filename() ? p : p.parent_path();
}

void check_is_free(const fs::path& to, const fs::path& temporary) {
  check<FileError>(!fs::exists(fs::symlink_status(temporary)), temporary.string(),
                   ": is there already: left of a conversion that was broken off, or of one that runs; remove it if none does");
  if (!fs::exists(fs::symlink_status(to))) return;
  check<FileError>(fs::is_directory(to), to.string(), ": is there already, and no folder");
  check<FileError>(fs::is_empty(to), to.string(), ": is not empty; choose a new folder");
}

}  // namespace

Converted convert_model(const fs::path& from, const fs::path& to_given, const ConvertOptions& options) {
  check<ConfigError>(!options.dtype || is_float(*options.dtype), "weights are f32, bf16 or f16");
  try {
    const fs::path to = plain(to_given), temporary = to.parent_path() / (to.filename().string() + ".tmp");
    check<FileError>(fs::exists(from), from.string(), ": is not there");
    check_is_free(to, temporary);
    const fs::path folder = fs::is_directory(from) ? from : plain(from).parent_path();
    const std::string config = config_text(folder / "config.json", options.dtype);
    Conversion conversion(from, options);

    Converted result{conversion.tensors().size(), conversion.renamed(), conversion.num_bytes(), {}};
    fs::create_directories(temporary);
    try {
      std::vector<WrittenFile> written;
      write_weights(temporary, conversion.tensors(), options.max_shard_bytes,
                    [&](const auto& tensor, const auto& write) { conversion.produce(tensor, write); }, written);
      for (const auto& item : fs::directory_iterator(folder)) {
        const std::string name = item.path().filename().string();
        if (!item.is_regular_file() || !is_copied(name)) continue;
        copy_contents(item.path(), temporary / name);
        result.copied.push_back(name);
      }
      write_file_atomically(temporary / "config.json", config);
      fsync_directory(temporary);
      fs::rename(temporary, to);
      fsync_directory(to.parent_path());
    } catch (...) {
      std::error_code ignored;
      fs::remove_all(temporary, ignored);
      throw;
    }
    std::sort(result.copied.begin(), result.copied.end());
    return result;
  } catch (const fs::filesystem_error& e) {
    throw FileError(text((e.path1().empty() ? to_given : e.path1()).string(), ": ", e.code().message()));
  }
}

}  // namespace trireme
