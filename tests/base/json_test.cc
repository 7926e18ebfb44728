#include "base/json.h"

#include <boost/json.hpp>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <functional>
#include <random>

#include "base/utf8.h"
#include "tests/errors.h"

namespace trireme {
namespace {

std::string error_of(const std::function<void()>& f) { return testing::message_of<FileError>(f); }

std::string parse_error(std::string_view text) {
  return error_of([&] { parse_json(text, "a.json"); });
}

TEST(Json, RejectsDuplicateKeysNamingKeyAndPlace) {
  EXPECT_EQ(parse_error("{\"a\": 1,\n \"b\": {\"x\": 1, \"x\": 2}}"),
            "a.json: line 2, column 16: duplicate key \"x\"");
  EXPECT_EQ(parse_error("{\"a\": 1, \"\\u0061\": 2}"), "a.json: line 1, column 10: duplicate key \"a\"");
  EXPECT_EQ(parse_error("{\"a\": {\"a\": 1}}"), "no error");
}

TEST(Json, RejectsNumbersThatLoseTheirValue) {
  EXPECT_EQ(parse_error("[1e400]"), "a.json: line 1, column 2: the number 1e400 is out of the range of a double");
  EXPECT_EQ(parse_error("[18446744073709551616]"),
            "a.json: line 1, column 2: the integer 18446744073709551616 does not fit 64 bits");
  EXPECT_EQ(parse_error("[-9223372036854775809]"),
            "a.json: line 1, column 2: the integer -9223372036854775809 does not fit 64 bits");
  EXPECT_EQ(parse_json("18446744073709551615", "").get_uint64(), 18446744073709551615u);
  EXPECT_EQ(parse_json("-9223372036854775808", "").get_int64(), std::numeric_limits<int64_t>::min());
}

TEST(Json, RejectsDeparturesFromTheGrammar) {
  for (const char* text : {"", " ", "{", "[", "[1", "[1,", "[1,]", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,}", "{a:1}",
                           "{'a':1}", "01", "-", "+1", ".5", "1.", "1e", "1e+", "0x10", "nul", "True", "NaN", "Infinity",
                           "-Infinity", "\"", "\"\\", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"a\nb\"", "\"\t\"",
                           "// c\n1", "1 /* c */", "1 2", "{} x", "[1 2]", "{\"a\" 1}", "\xEF\xBB\xBF{}", "\"\\ud800\"",
                           "\"\\udc00\"", "\"\\ud800\\u0041\"", "\"\xFF\"", "\"\xC0\x80\"", "\"\xED\xA0\x80\"", "]"}) {
    EXPECT_TRUE(parse_error(text).starts_with("a.json: line ")) << text << " -> " << parse_error(text);
  }
}

TEST(Json, NamesThePlaceInCharacters) {
  EXPECT_EQ(parse_error("{\n  \"\u00e9\u00e9\": 1 x}"), "a.json: line 2, column 11: expected ',' or '}', found 'x'");
  EXPECT_EQ(parse_error("{} {}"), "a.json: line 1, column 4: text after the end of the value");
  EXPECT_EQ(parse_error("[\"\xC3\"]"), "a.json: line 1, column 3: bytes that are not UTF-8");
}

TEST(Json, StopsAtDepth64) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(parse_error(nested(64)), "no error");
  EXPECT_EQ(parse_error(nested(65)), "a.json: line 1, column 65: nested deeper than 64");
  EXPECT_EQ(parse_error(std::string(5'000'000, '[')), "a.json: line 1, column 65: nested deeper than 64");
}

TEST(Json, ReadsEscapesAndKeepsTheOrderOfKeys) {
  const auto v = parse_json(R"( {"z":"\u00e9\ud83d\ude00\n\"\/\u0000", "a":[true,false,null,-1.5e3], "m":{}} )", "");
  EXPECT_EQ(std::string(v.at("z").get_string()), std::string("\u00e9\U0001F600\n\"/\0", 10));
  std::string keys;
  for (const auto& item : v.get_object()) keys += item.key();
  EXPECT_EQ(keys, "zam");
  EXPECT_EQ(v.at("a").at(3).get_double(), -1500.0);
  EXPECT_EQ(to_json(v), R"({"z":"é😀\n\"/\u0000","a":[true,false,null,-1500.0],"m":{}})");
  EXPECT_EQ(parse_json(to_json(v, JsonLayout::kIndented), ""), v);
}

TEST(Json, IndentsByTwoSpaces) {
  EXPECT_EQ(to_json(parse_json(R"({"a":[1,{"b":[]}],"c":{}})", ""), JsonLayout::kIndented),
            "{\n  \"a\": [\n    1,\n    {\n      \"b\": []\n    }\n  ],\n  \"c\": {}\n}\n");
}

TEST(Json, DoublesRoundTripToTheBit) {
  std::mt19937_64 bits(5);
  for (int i = 0; i < 20000; ++i) {
    const double d = std::bit_cast<double>(bits());
    if (!std::isfinite(d)) continue;
    const auto back = parse_json(to_json(d), "");
    ASSERT_TRUE(back.is_double()) << to_json(d);
    ASSERT_EQ(std::bit_cast<uint64_t>(back.get_double()), std::bit_cast<uint64_t>(d));
  }
  for (double d : {0.0, -0.0, 1.0, 1e21, 5e-324, 0.1, 1.7976931348623157e308})
    EXPECT_EQ(std::bit_cast<uint64_t>(parse_json(to_json(d), "").get_double()), std::bit_cast<uint64_t>(d));
  EXPECT_EQ(to_json(1.0), "1.0");
  EXPECT_THROW(to_json(std::nan("")), Error);
  EXPECT_THROW(to_json(HUGE_VAL), Error);
}

TEST(Json, SurvivesRandomDamage) {
  const std::string good = R"({"a":[1,2.5e-3,"x\u00e9\n"],"b":{"c":null,"d":true},"e":-7})";
  std::mt19937 random(11);
  for (int i = 0; i < 20000; ++i) {
    std::string bad = good;
    for (int k = 0; k <= static_cast<int>(random() % 3); ++k)
      bad[random() % bad.size()] = static_cast<char>(random());
    bad.resize(random() % 4 ? bad.size() : random() % bad.size());
    try {
      const auto v = parse_json(bad, "f");
      EXPECT_EQ(parse_json(to_json(v), "g"), v);
    } catch (const FileError&) {
    }
  }
}

TEST(JsonObject, ReadsTypedFields) {
  const auto v = parse_json(R"({"i":7,"d":2.5,"b":true,"s":"t","a":[1],"o":{"k":3},"n":null})", "");
  const JsonObject o(v, "c.json");
  EXPECT_EQ(o.integer("i", 0, 7), 7);
  EXPECT_EQ(o.number("d"), 2.5);
  EXPECT_EQ(o.number("i"), 7.0);
  EXPECT_TRUE(o.boolean("b"));
  EXPECT_EQ(o.string("s"), "t");
  EXPECT_EQ(o.array("a").size(), 1u);
  EXPECT_EQ(o.object("o").integer("k"), 3);
  EXPECT_FALSE(o.has("n"));
  EXPECT_EQ(o.integer_or("n", 9), 9);
  EXPECT_EQ(o.integer_or("absent", 8), 8);
  EXPECT_EQ(o.optional_object("n"), std::nullopt);
}

TEST(JsonObject, ErrorsNameWherePathFoundAndWanted) {
  const auto v = parse_json(
      R"({"i":7,"big":9223372036854775808,"d":2.5,"s":"t","o":{"k":[1,2]},"n":null,"neg":-1})", "");
  const JsonObject o(v, "c.json");
  EXPECT_EQ(error_of([&] { o.integer("i", 8, 9); }), "c.json: i is the number 7; it must be an integer in [8, 9]");
  EXPECT_EQ(error_of([&] { o.integer("big"); }), "c.json: big is the number 9223372036854775808; it must be an integer");
  EXPECT_EQ(error_of([&] { o.integer("d"); }), "c.json: d is the number 2.5; it must be an integer");
  EXPECT_EQ(error_of([&] { o.integer("neg", 0); }), "c.json: neg is the number -1; it must be an integer of at least 0");
  EXPECT_EQ(error_of([&] { o.integer("x"); }), "c.json: x is missing; it must be an integer");
  EXPECT_EQ(error_of([&] { o.integer("n"); }), "c.json: n is null; it must be an integer");
  EXPECT_EQ(error_of([&] { o.number("d", 0, 1); }), "c.json: d is the number 2.5; it must be a number in [0, 1]");
  EXPECT_EQ(error_of([&] { o.number_or("s", 0); }), "c.json: s is the string \"t\"; it must be a number");
  EXPECT_EQ(error_of([&] { o.boolean("s"); }), "c.json: s is the string \"t\"; it must be true or false");
  EXPECT_EQ(error_of([&] { o.string("i"); }), "c.json: i is the number 7; it must be a string");
  EXPECT_EQ(error_of([&] { o.object("o").integer("k"); }), "c.json: o.k is an array of 2; it must be an integer");
  EXPECT_EQ(error_of([&] { o.object("i"); }), "c.json: i is the number 7; it must be an object");
  EXPECT_EQ(error_of([&] { o.object("o").allow_only({"a", "b"}); }),
            "c.json: o.k is not a known key; known are: a, b");
  const auto list = parse_json("[]", "");
  EXPECT_EQ(error_of([&] { JsonObject(list, "c.json"); }),
            "c.json: the document is an array of 0; it must be an object");
}

TEST(Utf8, PrefixStopsAtTheFirstBadByte) {
  EXPECT_EQ(valid_utf8_prefix("ab\u00e9\u20ac\U0001F600"), 11u);
  EXPECT_EQ(valid_utf8_prefix("ab\xC3"), 2u);
  EXPECT_EQ(valid_utf8_prefix("a\xE0\x80\x80"), 1u);          // overlong
  EXPECT_EQ(valid_utf8_prefix("a\xED\xA0\x80"), 1u);          // surrogate
  EXPECT_EQ(valid_utf8_prefix("\xF4\x90\x80\x80"), 0u);       // above U+10FFFF
  EXPECT_EQ(valid_utf8_prefix("\xF4\x8F\xBF\xBF"), 4u);
  EXPECT_EQ(valid_utf8_prefix("\xC1\x81"), 0u);
  EXPECT_EQ(valid_utf8_prefix("\xF0\x90\x80"), 0u);
}

}  // namespace
}  // namespace trireme
