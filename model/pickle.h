// Reads pickles (docs.python.org/3/library/pickle.html, protocols 2 to 5) as data, and runs nothing: a pickle is a small
// program that builds objects by calling what it names; here it may name what stands in a closed list alone, calls are
// recorded and not made, and all that is not needed for plain data is refused.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace trireme {

// What a value of the pickle is. Values refer to each other by number in Pickle::values, as one may stand in many places.
struct PickleValue {
  enum class Kind : uint8_t {
    kNone, kBool, kInteger, kFloat,
    kLong,        // an integer of more than 64 bits: its bytes in `text`, little-endian
    kString,
    kTuple, kList,
    kDict,        // items: key, value, key, value ...; also of collections.OrderedDict
    kGlobal,      // "module name" in `text`, one of the list
    kCall,        // of items[0], a kGlobal, with items[1], a kTuple
    kPersistent,  // a reference to items[0] outside of the pickle
  };
  Kind kind = Kind::kNone;
  int64_t integer = 0;  // also of kBool
  double number = 0;
  std::string_view text;  // of the pickle's bytes
  std::vector<uint32_t> items;
};

struct Pickle {
  std::vector<PickleValue> values;
  uint32_t root = 0;
  size_t num_bytes = 0;  // of the pickle: where the next one may begin

  const PickleValue& operator[](uint32_t i) const { return values[i]; }
};

struct PickleLimits {
  size_t max_bytes = 64 << 20;
  size_t max_values = 4'000'000;  // made, on the stack, remembered; of marks; of items copied
};

// Reads the pickle at the front of `bytes`, which outlive the result. `globals`: what it may name, as "module name"; beside them
// collections.OrderedDict. Nothing here recurses, so depth has no bound but max_values. Throws FileError naming `where`, the
// offset and what stands there: an opcode or a global that is not in the lists, by its name; a stack, mark or memo that does
// not hold what is asked for; text that is not UTF-8 (but strings of Python 2 are any bytes); an end too early; too many bytes
// or values.
Pickle read_pickle(std::span<const std::byte> bytes, std::span<const std::string_view> globals, const std::string& where,
                   const PickleLimits& limits = {});

// "an integer", "a list" ..., for messages; of a global or call with its name.
std::string describe(const Pickle& pickle, uint32_t value);

}  // namespace trireme
