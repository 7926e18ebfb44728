#include "model/torch_state.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "base/utf8.h"
#include "model/safetensors.h"

namespace trireme {
namespace {

using Kind = PickleValue::Kind;

// Element types by the class of their storage and by their own name.
struct ElementType {
  std::string_view storage, dtype;  // as pickles name them; storage is empty for those that are in untyped storages alone
  const char* name;                 // of safetensors
  int bytes, number_bytes;
  std::optional<DType> held;
};
constexpr ElementType kTypes[] = {
    {"torch FloatStorage", "torch float32", "F32", 4, 4, DType::kF32},
    {"torch BFloat16Storage", "torch bfloat16", "BF16", 2, 2, DType::kBF16},
    {"torch HalfStorage", "torch float16", "F16", 2, 2, DType::kF16},
    {"torch DoubleStorage", "torch float64", "F64", 8, 8, {}},
    {"torch LongStorage", "torch int64", "I64", 8, 8, DType::kI64},
    {"torch IntStorage", "torch int32", "I32", 4, 4, DType::kI32},
    {"torch ShortStorage", "torch int16", "I16", 2, 2, {}},
    {"torch CharStorage", "torch int8", "I8", 1, 1, {}},
    {"torch ByteStorage", "torch uint8", "U8", 1, 1, DType::kU8},
    {"torch BoolStorage", "torch bool", "BOOL", 1, 1, {}},
    {"torch ComplexFloatStorage", "torch complex64", "C64", 8, 4, {}},
    {"", "torch uint16", "U16", 2, 2, {}},
    {"", "torch uint32", "U32", 4, 4, {}},
    {"", "torch uint64", "U64", 8, 8, {}},
    {"", "torch float8_e4m3fn", "F8_E4M3", 1, 1, {}},
    {"", "torch float8_e5m2", "F8_E5M2", 1, 1, {}},
    {"", "torch float8_e8m0fnu", "F8_E8M0", 1, 1, {}},
    {"", "torch float8_e4m3fnuz", "F8_E4M3FNUZ", 1, 1, {}},
    {"", "torch float8_e5m2fnuz", "F8_E5M2FNUZ", 1, 1, {}}};

constexpr std::string_view kUntyped = "torch.storage UntypedStorage", kSize = "torch Size",
                           kTensor1 = "torch._utils _rebuild_tensor", kTensor2 = "torch._utils _rebuild_tensor_v2",
                           kTensor3 = "torch._utils _rebuild_tensor_v3", kParameter = "torch._utils _rebuild_parameter";

constexpr uint64_t kMostRepeatedBytes = 64 << 20;

// A storage as the pickle speaks of it.
struct Reference {
  std::string key;
  int64_t numel = 0;
  uint64_t num_bytes = 0;
  const ElementType* type = nullptr;  // null: untyped
};

class StateReader {
 public:
  StateReader(const Pickle& pickle, const std::string& part, const std::string& where)
      : pickle_(pickle), part_(part), where_(where) {}

  TorchState read() {
    for (uint32_t v = 0; v < pickle_.values.size(); ++v)
      if (value(v).kind == Kind::kPersistent) add_storage(reference(v, "a storage"));
    const std::vector<uint32_t>& items = value(dictionary()).items;
    std::unordered_set<std::string> names;
    for (size_t i = 0; i < items.size(); i += 2) {
      const std::string name(string(items[i], "a tensor's name"));
      if (name.empty() || name.size() > SafetensorsFile::kMaxNameBytes || !is_valid_utf8(name) ||
          name.find('\0') != name.npos)
        fail('"', printable_start(name), "\" cannot be a tensor's name");
      uint32_t v = items[i + 1];
      if (is_call(v, kParameter)) {  // (tensor, requires_grad, hooks)
        if (arguments(v).empty()) fail(name, " is made of nothing");
        v = arguments(v)[0];
      }
      if (!is_tensor(v) || is_call(v, kParameter)) fail(name, " is ", described(items[i + 1]), ", not a tensor");
      if (!names.insert(name).second) fail("two tensors are called ", name);
      state_.tensors.push_back(tensor(name, v));
    }
    return std::move(state_);
  }

 private:
  template <class... Args>
  [[noreturn]] void fail(const Args&... message) const {
    throw FileError(text(where_, ": ", message...));
  }
  const PickleValue& value(uint32_t v) const { return pickle_[v]; }
  std::string described(uint32_t v) const { return describe(pickle_, v); }
  std::string_view string(uint32_t v, const std::string& what) const {
    if (value(v).kind != Kind::kString) fail(what, " is ", described(v), ", not a string");
    return value(v).text;
  }
  int64_t integer(uint32_t v, const std::string& what) const {
    if (value(v).kind != Kind::kInteger || value(v).integer < 0) fail(what, " is ", described(v), ", not a count");
    return value(v).integer;
  }
  bool is_call(uint32_t v, std::string_view of) const {
    return value(v).kind == Kind::kCall && value(value(v).items[0]).text == of;
  }
  const std::vector<uint32_t>& arguments(uint32_t call) const { return value(value(call).items[1]).items; }
  std::vector<int64_t> integers(uint32_t v, const std::string& what) const {
    if (is_call(v, kSize) && arguments(v).size() == 1 && value(arguments(v)[0]).kind == Kind::kTuple) v = arguments(v)[0];
    if (value(v).kind != Kind::kTuple && value(v).kind != Kind::kList) fail(what, " is ", described(v), ", not a tuple");
    if (value(v).items.size() > Shape::kMaxRank)
      fail(what, " has ", value(v).items.size(), " dimensions; at most ", Shape::kMaxRank, " are supported");
    std::vector<int64_t> out;
    for (const uint32_t i : value(v).items) out.push_back(integer(i, what));
    return out;
  }
  const ElementType* type_named(std::string_view name) const {
    for (const ElementType& t : kTypes)
      if (name == t.dtype || (!t.storage.empty() && name == t.storage)) return &t;
    return nullptr;
  }

  // ("storage", class, key, place, elements), and by old files a view of another storage, which is None.
  Reference reference(uint32_t persistent, const std::string& what) const {
    if (value(persistent).kind != Kind::kPersistent) fail(what, " has ", described(persistent), " for a storage");
    const uint32_t id = value(persistent).items[0];
    const std::vector<uint32_t>& parts = value(id).items;
    if (value(id).kind != Kind::kTuple || parts.size() < 5 || parts.size() > 6 ||
        string(parts[0], "a reference's kind") != "storage")
      fail(what, " refers to ", described(id), ", not to a storage");
    if (parts.size() == 6 && value(parts[5]).kind != Kind::kNone)
      fail(what, " refers to a view of a storage, as PyTorch before 0.4 wrote; write the file anew with a later one");
    Reference r;
    r.key = string(parts[2], what + ": the storage's key");
    if (value(parts[1]).kind != Kind::kGlobal) fail(what, ": the storage's class is ", described(parts[1]));
    const std::string_view class_name = value(parts[1]).text;
    if (class_name != kUntyped) {
      r.type = type_named(class_name);
      if (!r.type || r.type->storage != class_name) fail(what, ": the storage's class is ", described(parts[1]));
    }
    r.numel = integer(parts[4], what + ": the storage's size");
    if (__builtin_mul_overflow(static_cast<uint64_t>(r.numel), r.type ? r.type->bytes : 1, &r.num_bytes))
      fail(what, ": the storage ", r.key, " has ", r.numel, " elements: more bytes than 64 bits can count");
    return r;
  }
  void add_storage(const Reference& r) {
    const auto [it, fresh] = by_key_.emplace(r.key, state_.storages.size());
    if (fresh) {
      state_.storages.push_back({r.key, r.numel, r.num_bytes});
    } else if (const TorchStorage& s = state_.storages[it->second]; s.num_bytes != r.num_bytes || s.numel != r.numel) {
      fail("gives the storage ", printable_start(r.key), " ", s.num_bytes, " and ", r.num_bytes, " bytes");
    }
  }

  bool is_tensor(uint32_t v) const {
    for (const std::string_view f : {kTensor1, kTensor2, kTensor3, kParameter})
      if (is_call(v, f)) return true;
    return false;
  }

  // The dictionary of tensors: the root, or its part.
  uint32_t dictionary() const {
    const uint32_t root = pickle_.root;
    if (value(root).kind != Kind::kDict) fail("holds ", described(root), ", not a dictionary of tensors");
    const std::vector<uint32_t>& items = value(root).items;
    if (part_.empty()) {
      bool any = items.empty();
      for (size_t i = 1; i < items.size(); i += 2) any |= is_tensor(items[i]);
      if (!any) fail("holds no tensors at its top", parts_of(root));
      return root;
    }
    for (size_t i = 0; i < items.size(); i += 2) {
      if (value(items[i]).kind != Kind::kString || value(items[i]).text != part_) continue;
      if (value(items[i + 1]).kind != Kind::kDict) fail(part_, " is ", described(items[i + 1]), ", not a dictionary");
      return items[i + 1];
    }
    fail("has no part ", part_, parts_of(root));
  }
  // "; its parts model, ema do: name one of them", if there are such.
  std::string parts_of(uint32_t root) const {
    std::string names;
    const std::vector<uint32_t>& items = value(root).items;
    for (size_t i = 0; i < items.size(); i += 2) {
      const PickleValue& v = value(items[i + 1]);
      if (value(items[i]).kind != Kind::kString || v.kind != Kind::kDict || v.items.empty()) continue;
      bool all = true;
      for (size_t k = 1; k < v.items.size(); k += 2) all &= is_tensor(v.items[k]);
      if (all) names += (names.empty() ? "" : ", ") + printable_start(value(items[i]).text);
    }
    return names.empty() ? std::string() : text("; dictionaries of tensors are under ", names, ": say which");
  }

  // (storage, offset, sizes, strides, requires_grad, hooks, ...), offset and strides in elements.
  TorchTensor tensor(const std::string& name, uint32_t call) const {
    const std::vector<uint32_t>& a = arguments(call);
    if (a.size() < 4) fail(name, " is made of ", a.size(), " values");
    const Reference r = reference(a[0], name);
    const ElementType* type = r.type;
    if (is_call(call, kTensor3)) {
      if (a.size() < 7 || value(a[6]).kind != Kind::kGlobal) fail(name, " has no type");
      type = type_named(value(a[6]).text);
      if (type && r.type && type != r.type) fail(name, " is ", value(a[6]).text, " in a ", r.type->storage);
    }
    if (!type) fail(name, " has no type: its storage is untyped");
    // What else a tensor is: a conjugated or negated view, whose storage has other values.
    if (const size_t more = is_call(call, kTensor3) ? 7 : 6; a.size() > more) {
      const PickleValue& facts = value(a[more]);
      if (a.size() > more + 1 || (facts.kind != Kind::kNone && (facts.kind != Kind::kDict || !facts.items.empty())))
        fail(name, " is more than a view of its storage (conjugated or negated): write it anew as .clone()");
    }

    TorchTensor t;
    t.name = name;
    t.file_dtype = type->name;
    t.dtype = type->held;
    t.element_bytes = type->bytes;
    t.number_bytes = type->number_bytes;
    const int64_t offset = integer(a[1], name + ": the offset");
    const std::vector<int64_t> sizes = integers(a[2], name + ": the shape");
    t.strides = integers(a[3], name + ": the strides");
    if (sizes.size() != t.strides.size())
      fail(name, " has ", sizes.size(), " dimensions and ", t.strides.size(), " strides");
    try {
      t.shape = Shape(std::span<const int64_t>(sizes));
    } catch (const ShapeError& e) {
      fail(name, ": ", e.what());
    }
    if (__builtin_mul_overflow(static_cast<uint64_t>(t.shape.numel()), type->bytes, &t.num_bytes))
      fail(name, " is ", t.shape, ": more bytes than 64 bits can count");

    // The last element's place, in bytes, must be inside; with that every other is.
    uint64_t begin = 0, last = 0;
    bool overflow = __builtin_mul_overflow(static_cast<uint64_t>(offset), type->bytes, &begin);
    last = begin;
    int64_t dense = 1;
    t.row_major = true;
    for (int d = t.shape.rank() - 1; d >= 0; --d) {
      uint64_t reach = 0;
      overflow |= __builtin_mul_overflow(static_cast<uint64_t>(std::max<int64_t>(sizes[d], 1) - 1),
                                         static_cast<uint64_t>(t.strides[d]), &reach);
      overflow |= __builtin_mul_overflow(reach, type->bytes, &reach);
      overflow |= __builtin_add_overflow(last, reach, &last);
      t.row_major &= sizes[d] == 1 || t.strides[d] == dense;
      dense *= sizes[d];
    }
    const bool empty = t.shape.numel() == 0;
    if (!empty && (overflow || last > r.num_bytes || r.num_bytes - last < static_cast<uint64_t>(type->bytes)))
      fail(name, " ", t.shape, " reaches outside its storage ", printable_start(r.key), " of ", r.num_bytes, " bytes");
    // Elements may stand in several places of a tensor, but a few bytes shall not ask for a disk or a memory full of them.
    if (t.num_bytes > std::max(r.num_bytes, kMostRepeatedBytes))
      fail(name, " ", t.shape, " repeats the ", r.num_bytes, " bytes of its storage to ", t.num_bytes, "; at most ",
           kMostRepeatedBytes, " are made so");
    t.storage = by_key_.at(r.key);
    t.begin = empty ? 0 : begin;
    return t;
  }

  const Pickle& pickle_;
  const std::string& part_;
  const std::string& where_;
  TorchState state_;
  std::unordered_map<std::string, size_t> by_key_;  // of the storages
};

}  // namespace

std::string printable_start(std::string_view s) {
  std::string out;
  for (const char c : s.substr(0, 100)) out += c >= 0x20 && c < 0x7F ? c : '?';
  return out;
}

std::span<const std::string_view> torch_globals() {
  static const std::vector<std::string_view> known = [] {
    std::vector<std::string_view> all = {kUntyped, kSize, kTensor1, kTensor2, kTensor3, kParameter};
    for (const ElementType& t : kTypes) {
      if (!t.storage.empty()) all.push_back(t.storage);
      all.push_back(t.dtype);
    }
    return all;
  }();
  return known;
}

TorchState read_torch_state(const Pickle& pickle, const std::string& part, const std::string& where) {
  return StateReader(pickle, part, where).read();
}

}  // namespace trireme
