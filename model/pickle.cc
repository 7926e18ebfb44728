#include "model/pickle.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_map>

#include "base/error.h"
#include "base/utf8.h"

namespace trireme {
namespace {

using Kind = PickleValue::Kind;

constexpr std::string_view kOrderedDict = "collections OrderedDict";
constexpr int kNewestProtocol = 5;

// Opcodes that are refused, by name for the message.
struct Opcode {
  uint8_t code;
  const char* name;
};
constexpr Opcode kRefused[] = {
    {'0', "POP"}, {'1', "POP_MARK"}, {'2', "DUP"}, {'F', "FLOAT"}, {'I', "INT"}, {'L', "LONG"}, {'P', "PERSID"},
    {'S', "STRING"}, {'V', "UNICODE"}, {'d', "DICT"}, {'g', "GET"}, {'i', "INST"}, {'l', "LIST"}, {'o', "OBJ"},
    {'p', "PUT"}, {'B', "BINBYTES"}, {'C', "SHORT_BINBYTES"}, {0x81, "NEWOBJ"}, {0x82, "EXT1"}, {0x83, "EXT2"},
    {0x84, "EXT4"}, {0x8b, "LONG4"}, {0x8e, "BINBYTES8"}, {0x8f, "EMPTY_SET"}, {0x90, "ADDITEMS"}, {0x91, "FROZENSET"},
    {0x92, "NEWOBJ_EX"}, {0x96, "BYTEARRAY8"}, {0x97, "NEXT_BUFFER"}, {0x98, "READONLY_BUFFER"}};

std::string printable(std::string_view s) {
  constexpr size_t kLongest = 100;
  std::string out;
  for (const char c : s.substr(0, kLongest)) out += c >= 0x20 && c < 0x7F ? c : '?';
  return s.size() > kLongest ? out + "..." : out;
}

class Reader {
 public:
  Reader(std::span<const std::byte> bytes, std::span<const std::string_view> globals, const std::string& where,
         const PickleLimits& limits)
      : bytes_(bytes.first(std::min(bytes.size(), limits.max_bytes))), cut_(bytes.size() > bytes_.size()),
        globals_(globals), where_(where), limits_(limits) {}

  Pickle read() {
    while (!step()) {
    }
    if (!marks_.empty()) fail("ends with a mark open");
    if (stack_.size() != 1) fail(text("ends with ", stack_.size(), " values in place of one"));
    pickle_.root = stack_[0];
    pickle_.num_bytes = at_;
    return std::move(pickle_);
  }

 private:
  [[noreturn]] void fail(const std::string& message) const {
    throw FileError(text(where_, ": offset ", op_at_, ": ", message));
  }

  std::string_view take(uint64_t n) {
    if (n > bytes_.size() - at_)
      fail(cut_ ? text("the pickle has more than ", limits_.max_bytes, " bytes")
                : text("the pickle is cut off: ", n, " bytes are wanted and ", bytes_.size() - at_, " left"));
    const std::string_view taken(reinterpret_cast<const char*>(bytes_.data()) + at_, n);
    at_ += n;
    return taken;
  }
  template <class T>
  T number() {
    T v;
    std::memcpy(&v, take(sizeof(T)).data(), sizeof(T));
    return v;
  }
  std::string_view line() {
    const char* begin = reinterpret_cast<const char*>(bytes_.data()) + at_;
    const void* end = std::memchr(begin, '\n', bytes_.size() - at_);
    if (!end) fail("a name without an end");
    const std::string_view taken = take(static_cast<const char*>(end) - begin);
    ++at_;
    return taken;
  }

  void push(PickleValue value) {
    pickle_.values.push_back(std::move(value));
    check_room(pickle_.values.size());
    push_again(static_cast<uint32_t>(pickle_.values.size() - 1));
  }
  void push_again(uint32_t value) {
    stack_.push_back(value);
    check_room(stack_.size());
  }
  void check_room(size_t count) const {
    if (count > limits_.max_values) fail(text("more than ", limits_.max_values, " values"));
  }
  void push(Kind kind, int64_t integer = 0) {
    PickleValue v;
    v.kind = kind;
    v.integer = integer;
    push(std::move(v));
  }
  void push_text(Kind kind, std::string_view s) {
    PickleValue v;
    v.kind = kind;
    v.text = s;
    push(std::move(v));
  }
  void push_string(uint64_t length) {
    const std::string_view s = take(length);
    if (!is_valid_utf8(s)) fail("a string is not UTF-8");
    push_text(Kind::kString, s);
  }
  void push_tuple(std::vector<uint32_t> items) {
    PickleValue v;
    v.kind = Kind::kTuple;
    v.items = std::move(items);
    push(std::move(v));
  }

  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  uint32_t pop() {
    if (stack_.size() <= floor()) fail("takes a value where there is none");
    const uint32_t v = stack_.back();
    stack_.pop_back();
    return v;
  }
  std::vector<uint32_t> pop_to_mark() {
    if (marks_.empty()) fail("goes back to a mark where there is none");
    const std::vector<uint32_t> items(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()), stack_.end());
    stack_.resize(marks_.back());
    marks_.pop_back();
    return items;
  }
  uint32_t top(Kind kind, const char* wanted) {
    if (stack_.size() <= floor() || pickle_[stack_.back()].kind != kind)
      fail(text("adds to ", stack_.size() <= floor() ? "nothing" : describe(pickle_, stack_.back()), ", which is no ",
                wanted));
    return stack_.back();
  }

  void append(const std::vector<uint32_t>& items) {
    std::vector<uint32_t>& list = pickle_.values[top(Kind::kList, "list")].items;
    list.insert(list.end(), items.begin(), items.end());
  }
  void set_items(const std::vector<uint32_t>& items) {
    if (items.size() % 2 != 0) fail("a key without a value");
    const uint32_t to = top(Kind::kDict, "dictionary");
    for (size_t i = 0; i < items.size(); i += 2) {
      const Kind k = pickle_[items[i]].kind;
      if (k != Kind::kString && k != Kind::kInteger && k != Kind::kFloat && k != Kind::kBool && k != Kind::kNone)
        fail(text("a dictionary's key is ", describe(pickle_, items[i])));
    }
    std::vector<uint32_t>& dict = pickle_.values[to].items;
    dict.insert(dict.end(), items.begin(), items.end());
  }

  void memoize(uint64_t key) {
    if (stack_.size() <= floor()) fail("remembers a value where there is none");
    memo_[key] = stack_.back();
    check_room(memo_.size());
  }
  void recall(uint64_t key) {
    const auto it = memo_.find(key);
    if (it == memo_.end()) fail(text("asks for value ", key, ", which was not remembered"));
    push_again(it->second);
  }

  void push_global(std::string_view module, std::string_view name) {
    const std::string whole = text(module, ' ', name);
    const auto known = std::find(globals_.begin(), globals_.end(), whole);
    if (known == globals_.end() && whole != kOrderedDict)
      fail(text("names ", printable(module), '.', printable(name),
                ", which is not among what a dictionary of tensors needs; nothing was run. A file that holds a whole model or "
                "other objects is written anew with torch.save(model.state_dict(), ...)"));
    push_text(Kind::kGlobal, known == globals_.end() ? kOrderedDict : *known);
  }
  std::string_view string_value(uint32_t v) {
    if (pickle_[v].kind != Kind::kString) fail(text("a global is named by ", describe(pickle_, v)));
    return pickle_[v].text;
  }

  // collections.OrderedDict() or, by Python 2, OrderedDict([[key, value], ...]).
  void push_ordered_dict(uint32_t arguments) {
    std::vector<uint32_t> items;
    const std::vector<uint32_t>& given = pickle_[arguments].items;
    if (given.size() > 1 || (given.size() == 1 && pickle_[given[0]].kind != Kind::kList))
      fail("calls collections.OrderedDict with other than a list of pairs");
    if (given.size() == 1)
      for (const uint32_t pair : pickle_[given[0]].items) {
        const PickleValue& p = pickle_[pair];
        if ((p.kind != Kind::kTuple && p.kind != Kind::kList) || p.items.size() != 2)
          fail("calls collections.OrderedDict with other than a list of pairs");
        items.insert(items.end(), p.items.begin(), p.items.end());
      }
    // The one place where few bytes copy many items: a list can be remembered and given again.
    check_room(copied_ += items.size());
    push(Kind::kDict);
    set_items(items);
  }
  void reduce() {
    const uint32_t arguments = pop(), callable = pop();
    if (pickle_[callable].kind != Kind::kGlobal || pickle_[arguments].kind != Kind::kTuple)
      fail(text("calls ", describe(pickle_, callable), " with ", describe(pickle_, arguments)));
    if (pickle_[callable].text == kOrderedDict) return push_ordered_dict(arguments);
    PickleValue v;
    v.kind = Kind::kCall;
    v.items = {callable, arguments};
    push(std::move(v));
  }

  // True after the end.
  bool step() {
    op_at_ = at_;
    const auto op = static_cast<uint8_t>(take(1)[0]);
    switch (op) {
      case 0x80: {  // PROTO
        const auto protocol = number<uint8_t>();
        if (protocol < 2 || protocol > kNewestProtocol)
          fail(text("is of protocol ", int{protocol}, "; 2 to ", kNewestProtocol, " can be read"));
        return false;
      }
      case 0x95: {  // FRAME
        const auto length = number<uint64_t>();
        if (length > bytes_.size() - at_) fail(text("a frame of ", length, " bytes, of which ", bytes_.size() - at_, " are there"));
        return false;
      }
      case '(':  // MARK
        marks_.push_back(stack_.size());
        check_room(marks_.size());
        return false;
      case ')': push(Kind::kTuple); return false;               // EMPTY_TUPLE
      case ']': push(Kind::kList); return false;                // EMPTY_LIST
      case '}': push(Kind::kDict); return false;                // EMPTY_DICT
      case 'N': push(Kind::kNone); return false;                // NONE
      case 0x88: push(Kind::kBool, 1); return false;            // NEWTRUE
      case 0x89: push(Kind::kBool, 0); return false;            // NEWFALSE
      case 'K': push(Kind::kInteger, number<uint8_t>()); return false;   // BININT1
      case 'M': push(Kind::kInteger, number<uint16_t>()); return false;  // BININT2
      case 'J': push(Kind::kInteger, number<int32_t>()); return false;   // BININT
      case 0x8a: {                                              // LONG1: two's complement
        const std::string_view b = take(number<uint8_t>());
        if (b.size() > 8) {
          push_text(Kind::kLong, b);
          return false;
        }
        uint64_t v = !b.empty() && (b.back() & 0x80) ? ~uint64_t{0} : 0;
        if (!b.empty()) std::memcpy(&v, b.data(), b.size());
        push(Kind::kInteger, static_cast<int64_t>(v));
        return false;
      }
      case 'G': {  // BINFLOAT: big-endian
        PickleValue v;
        v.kind = Kind::kFloat;
        v.number = std::bit_cast<double>(__builtin_bswap64(number<uint64_t>()));
        push(std::move(v));
        return false;
      }
      case 0x8c: push_string(number<uint8_t>()); return false;   // SHORT_BINUNICODE
      case 'X': push_string(number<uint32_t>()); return false;   // BINUNICODE
      case 0x8d: push_string(number<uint64_t>()); return false;  // BINUNICODE8
      case 'U': push_text(Kind::kString, take(number<uint8_t>())); return false;   // SHORT_BINSTRING, of Python 2
      case 'T': push_text(Kind::kString, take(number<uint32_t>())); return false;  // BINSTRING, of Python 2
      case 't': push_tuple(pop_to_mark()); return false;         // TUPLE
      case 0x85: push_tuple({pop()}); return false;              // TUPLE1
      case 0x86: {                                               // TUPLE2
        const uint32_t b = pop(), a = pop();
        push_tuple({a, b});
        return false;
      }
      case 0x87: {  // TUPLE3
        const uint32_t c = pop(), b = pop(), a = pop();
        push_tuple({a, b, c});
        return false;
      }
      case 'a': {  // APPEND
        const uint32_t v = pop();
        append({v});
        return false;
      }
      case 'e': append(pop_to_mark()); return false;  // APPENDS
      case 's': {                                     // SETITEM
        const uint32_t v = pop(), k = pop();
        set_items({k, v});
        return false;
      }
      case 'u': set_items(pop_to_mark()); return false;    // SETITEMS
      case 'q': memoize(number<uint8_t>()); return false;  // BINPUT
      case 'r': memoize(number<uint32_t>()); return false; // LONG_BINPUT
      case 0x94: memoize(memo_.size()); return false;      // MEMOIZE
      case 'h': recall(number<uint8_t>()); return false;   // BINGET
      case 'j': recall(number<uint32_t>()); return false;  // LONG_BINGET
      case 'c': {                                          // GLOBAL
        const std::string_view module = line(), name = line();
        push_global(module, name);
        return false;
      }
      case 0x93: {  // STACK_GLOBAL
        const uint32_t name = pop(), module = pop();
        push_global(string_value(module), string_value(name));
        return false;
      }
      case 'Q': {  // BINPERSID
        PickleValue v;
        v.kind = Kind::kPersistent;
        v.items = {pop()};
        push(std::move(v));
        return false;
      }
      case 'R': reduce(); return false;  // REDUCE
      case 'b': {                        // BUILD: attributes, which a dictionary can do without
        pop();
        top(Kind::kDict, "dictionary");
        return false;
      }
      case '.': return true;  // STOP
      default: break;
    }
    for (const Opcode& o : kRefused)
      if (o.code == op) fail(text("the opcode ", o.name, " is not among those of a dictionary of tensors"));
    fail(text("the byte ", int{op}, " is no opcode of a pickle"));
  }

  std::span<const std::byte> bytes_;
  bool cut_;
  std::span<const std::string_view> globals_;
  const std::string& where_;
  const PickleLimits& limits_;
  Pickle pickle_;
  std::vector<uint32_t> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint64_t, uint32_t> memo_;
  size_t at_ = 0, op_at_ = 0, copied_ = 0;
};

}  // namespace

Pickle read_pickle(std::span<const std::byte> bytes, std::span<const std::string_view> globals, const std::string& where,
                   const PickleLimits& limits) {
  return Reader(bytes, globals, where, limits).read();
}

std::string describe(const Pickle& pickle, uint32_t value) {
  const PickleValue& v = pickle[value];
  switch (v.kind) {
    case Kind::kNone: return "None";
    case Kind::kBool: return v.integer ? "True" : "False";
    case Kind::kInteger: return text("the integer ", v.integer);
    case Kind::kFloat: return text("the number ", v.number);
    case Kind::kLong: return "a long integer";
    case Kind::kString: return text("the string \"", printable(v.text), '"');
    case Kind::kTuple: return text("a tuple of ", v.items.size());
    case Kind::kList: return text("a list of ", v.items.size());
    case Kind::kDict: return text("a dictionary of ", v.items.size() / 2);
    case Kind::kGlobal: return std::string(v.text);
    case Kind::kCall: return text("what ", pickle[v.items[0]].text, " makes");
    case Kind::kPersistent: return "a storage";
  }
  return "";
}

}  // namespace trireme
