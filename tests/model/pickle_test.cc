#include "model/pickle.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/errors.h"

namespace trireme {
namespace {

using testing::message_of;
using Kind = PickleValue::Kind;
using namespace std::string_literals;

constexpr std::string_view kKnown[] = {"torch Size", "torch FloatStorage"};

Pickle read(const std::string& s, const PickleLimits& limits = {}) {
  return read_pickle(std::as_bytes(std::span(s.data(), s.size())), kKnown, "x.bin", limits);
}
std::string error(const std::string& s, const PickleLimits& limits = {}) {
  return message_of<FileError>([&] { read(s, limits); });
}

// What a value is, as Python would write it.
std::string shown(const Pickle& p, uint32_t v) {
  const auto list = [&](const char* open, const char* close) {
    std::string out = open;
    for (size_t i = 0; i < p[v].items.size(); ++i) out += (i ? "," : "") + shown(p, p[v].items[i]);
    return out + close;
  };
  switch (p[v].kind) {
    case Kind::kNone: return "None";
    case Kind::kBool: return p[v].integer ? "True" : "False";
    case Kind::kInteger: return std::to_string(p[v].integer);
    case Kind::kFloat: return text(p[v].number);
    case Kind::kLong: return text("long", p[v].text.size());
    case Kind::kString: return "'" + std::string(p[v].text) + "'";
    case Kind::kTuple: return list("(", ")");
    case Kind::kList: return list("[", "]");
    case Kind::kDict: return list("{", "}");
    case Kind::kGlobal: return std::string(p[v].text);
    case Kind::kCall: return "call" + list("<", ">");
    case Kind::kPersistent: return "ref" + list("<", ">");
  }
  return "?";
}
std::string shown(const std::string& s) {
  const Pickle p = read(s);
  return shown(p, p.root);
}

TEST(Pickle, ReadsWhatPythonWrites) {
  // pickle.dumps({'a': [1, -2, 300, 70000, 2**40, True, None, 2.5], 'b': ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4))}, 2)
  EXPECT_EQ(shown("\x80\x02}q\x00(X\x01\x00\x00\x00" "aq\x01]q\x02(K\x01J\xfe\xff\xff\xffM,\x01Jp\x11\x01\x00\x8a\x06\x00\x00"
                  "\x00\x00\x00\x01\x88NG@\x04\x00\x00\x00\x00\x00\x00" "eX\x01\x00\x00\x00" "bq\x03()K\x01\x85q\x04K\x01K\x02"
                  "\x86q\x05K\x01K\x02K\x03\x87q\x06(K\x01K\x02K\x03K\x04tq\x07tq\x08u."s),
            "{'a',[1,-2,300,70000,1099511627776,True,None,2.5],'b',((),(1),(1,2),(1,2,3),(1,2,3,4))}");
  // pickle.dumps(['ab', 'ab'], 4): frame, short strings, implicit memo
  EXPECT_EQ(shown("\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00]\x94(\x8c\x02" "ab\x94h\x01" "e."s), "['ab','ab']");
  EXPECT_EQ(shown("\x80\x02\x8a\x00.\x80"s), "0");
  EXPECT_EQ(shown("\x80\x02\x8a\x01\xff."s), "-1");
  EXPECT_EQ(shown("\x80\x02\x8a\x09" "123456789."s), "long9");
  EXPECT_EQ(shown("\x80\x02U\x02\xff!."s), "'\xff!'");  // of Python 2: any bytes
  EXPECT_EQ(read("\x80\x02N.more"s).num_bytes, 4u);
}

TEST(Pickle, RecordsCallsOfKnownGlobalsAndMakesNone) {
  EXPECT_EQ(shown("\x80\x02" "ctorch\nSize\nK\x03\x85R."s), "call<torch Size,(3)>");
  EXPECT_EQ(shown("\x80\x04\x8c\x05torch\x8c\x04Size\x93K\x03\x85R."s), "call<torch Size,(3)>");
  EXPECT_EQ(shown("\x80\x02X\x07\x00\x00\x00storagectorch\nFloatStorage\n\x86Q."s), "ref<('storage',torch FloatStorage)>");
  EXPECT_EQ(shown("\x80\x02" "ccollections\nOrderedDict\n)R(K\x01Nu."s), "{1,None}");
  // By Python 2: OrderedDict([['a', 1]]), with attributes.
  EXPECT_EQ(shown("\x80\x02" "ccollections\nOrderedDict\n](](U\x01" "aK\x01" "ee\x85R}(U\x01xNub."s), "{'a',1}");
}

TEST(Pickle, NamesWhatItRefuses) {
  EXPECT_EQ(error("\x80\x02" "cposix\nsystem\nX\x02\x00\x00\x00ls\x85R."s),
            "x.bin: offset 2: names posix.system, which is not among what a dictionary of tensors needs; nothing was run. A "
            "file that holds a whole model or other objects is written anew with torch.save(model.state_dict(), ...)");
  EXPECT_TRUE(error("\x80\x04\x8c\x08" "builtins\x8c\x04" "eval\x93."s).starts_with("x.bin: offset 18: names builtins.eval, "));
  EXPECT_TRUE(error("\x80\x02" "c\x01tor\xff\nSize\n."s).starts_with("x.bin: offset 2: names ?tor?.Size, "));
  EXPECT_EQ(error("\x80\x02" "(i__main__\nX\n."s), "x.bin: offset 3: the opcode INST is not among those of a dictionary of tensors");
  EXPECT_EQ(error("\x80\x02" "ctorch\nSize\n)\x81."s),
            "x.bin: offset 15: the opcode NEWOBJ is not among those of a dictionary of tensors");
  EXPECT_EQ(error("\x80\x02\xf0."s), "x.bin: offset 2: the byte 240 is no opcode of a pickle");
  EXPECT_EQ(error("\x80\x09."s), "x.bin: offset 0: is of protocol 9; 2 to 5 can be read");
  EXPECT_EQ(error("\x80\x02NNR."s), "x.bin: offset 4: calls None with None");
  EXPECT_EQ(error("\x80\x02]]\x85R."s), "x.bin: offset 5: calls a list of 0 with a tuple of 1");
  EXPECT_EQ(error("\x80\x02" "ctorch\nSize\n)R}b."s), "x.bin: offset 17: adds to what torch Size makes, which is no dictionary");
}

TEST(Pickle, EveryTakeIsChecked) {
  EXPECT_EQ(error(""), "x.bin: offset 0: the pickle is cut off: 1 bytes are wanted and 0 left");
  EXPECT_EQ(error("\x80\x02X\xff\xff\xff\xff" "a"s), "x.bin: offset 2: the pickle is cut off: 4294967295 bytes are wanted and 1 left");
  EXPECT_EQ(error("\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xff" "a"s),
            "x.bin: offset 2: the pickle is cut off: 18446744073709551615 bytes are wanted and 1 left");
  EXPECT_EQ(error("\x80\x02."s), "x.bin: offset 2: ends with 0 values in place of one");
  EXPECT_EQ(error("\x80\x02NN."s), "x.bin: offset 4: ends with 2 values in place of one");
  EXPECT_EQ(error("\x80\x02N(."s), "x.bin: offset 4: ends with a mark open");
  EXPECT_EQ(error("\x80\x02t."s), "x.bin: offset 2: goes back to a mark where there is none");
  EXPECT_EQ(error("\x80\x02N(\x85."s), "x.bin: offset 4: takes a value where there is none");
  EXPECT_EQ(error("\x80\x02N(q\x00."s), "x.bin: offset 4: remembers a value where there is none");
  EXPECT_EQ(error("\x80\x02h\x07."s), "x.bin: offset 2: asks for value 7, which was not remembered");
  EXPECT_EQ(error("\x80\x02Na."s), "x.bin: offset 3: adds to nothing, which is no list");
  EXPECT_EQ(error("\x80\x02NNa."s), "x.bin: offset 4: adds to None, which is no list");
  EXPECT_EQ(error("\x80\x02}(Nu."s), "x.bin: offset 5: a key without a value");
  EXPECT_EQ(error("\x80\x02}]Ns."s), "x.bin: offset 5: a dictionary's key is a list of 0");
  EXPECT_EQ(error("\x80\x02X\x01\x00\x00\x00\xff."s), "x.bin: offset 2: a string is not UTF-8");
  EXPECT_EQ(error("\x80\x02" "ctorch"s), "x.bin: offset 2: a name without an end");
  EXPECT_EQ(error("\x80\x04\x95\x0d\x00\x00\x00\x00\x00\x00\x00N."s), "x.bin: offset 2: a frame of 13 bytes, of which 2 are there");
}

TEST(Pickle, SizesAreBounded) {
  EXPECT_EQ(error("\x80\x02(NNNNNt."s, {.max_values = 4}), "x.bin: offset 7: more than 4 values");
  EXPECT_EQ(error("\x80\x02((((((t."s, {.max_values = 4}), "x.bin: offset 6: more than 4 values");
  EXPECT_EQ(error("\x80\x02Nq\x00h\x00h\x00h\x00h\x00."s, {.max_values = 4}), "x.bin: offset 11: more than 4 values");
  EXPECT_EQ(error("\x80\x02Nq\x00q\x01q\x02q\x03q\x04."s, {.max_values = 4}), "x.bin: offset 11: more than 4 values");
  EXPECT_EQ(error("\x80\x02X\x08\x00\x00\x00" "12345678."s, {.max_bytes = 10}), "x.bin: offset 2: the pickle has more than 10 bytes");
  // A list that is remembered and made a dictionary again and again.
  std::string copies = "\x80\x02](NN\x86NN\x86NN\x86" "eq\x00"s;
  for (int i = 0; i < 8; ++i) copies += "ccollections\nOrderedDict\nh\x00\x85R"s;
  EXPECT_NE(error(copies + ".", {.max_values = 45}).find("more than 45 values"), std::string::npos);
}

TEST(Pickle, AListInItselfIsNoTrouble) {
  const Pickle p = read("\x80\x02]q\x00h\x00" "a."s);
  EXPECT_EQ(p[p.root].items, (std::vector<uint32_t>{p.root}));
}

}  // namespace
}  // namespace trireme
