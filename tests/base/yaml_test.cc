#include "base/yaml.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <string>

#include "base/error.h"
#include "tests/test_data.h"

namespace trireme {
namespace {

std::string error_of(std::string_view yaml) {
  try {
    parse_yaml(yaml, "f.yaml");
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "no error";
}

const YamlNode& at(const YamlNode& map, const std::string& key) {
  for (const auto& entry : map.entries)
    if (entry.key == key) return entry.value;
  throw std::runtime_error("no key " + key);
}

TEST(Yaml, KeepsOrderTextAndPositions) {
  const YamlNode root = parse_yaml("b: 1\na:\n  - x\n  - {c: 'two', d: \"3\"}\ne: |\n  text\n", "f.yaml");
  ASSERT_EQ(root.type, YamlNode::Type::kMap);
  ASSERT_EQ(root.entries.size(), 3u);
  EXPECT_EQ(root.entries[0].key, "b");
  EXPECT_EQ(root.entries[1].line, 2);
  EXPECT_EQ(root.entries[1].column, 1);
  const YamlNode& list = at(root, "a");
  ASSERT_EQ(list.items.size(), 2u);
  EXPECT_EQ(list.items[0].scalar, "x");
  EXPECT_EQ(list.items[0].line, 3);
  EXPECT_EQ(list.items[0].column, 5);
  EXPECT_EQ(at(list.items[1], "c").kind, ScalarKind::kString);
  EXPECT_EQ(at(list.items[1], "d").kind, ScalarKind::kString);
  EXPECT_EQ(at(list.items[1], "d").scalar, "3");
  EXPECT_EQ(at(root, "e").scalar, "text\n");
  EXPECT_EQ(at(root, "e").kind, ScalarKind::kString);
}

TEST(Yaml, AcceptsByteOrderMarkCarriageReturnsAndEmptyText) {
  EXPECT_EQ(at(parse_yaml("\xef\xbb\xbf" "a: 1\r\nb: 2\r\n", "f"), "b").scalar, "2");
  EXPECT_TRUE(parse_yaml("", "f").is_null());
  EXPECT_TRUE(parse_yaml("# only a comment\n", "f").is_null());
  EXPECT_EQ(at(parse_yaml("---\na: 1\n...\n", "f"), "a").scalar, "1");
}

TEST(Yaml, ClassifiesPlainScalarsByOneGrammar) {
  using K = ScalarKind;
  const std::pair<const char*, K> cases[] = {
      {"", K::kNull}, {"~", K::kNull}, {"null", K::kNull}, {"true", K::kBool}, {"false", K::kBool},
      {"0", K::kInteger}, {"-7", K::kInteger}, {"123456789012345678901234", K::kInteger},
      {"0.5", K::kFloat}, {"3e-4", K::kFloat}, {"-1.5E+3", K::kFloat}, {"1e400", K::kFloat}, {"-0", K::kInteger},
      {"010", K::kAmbiguous}, {"-010", K::kAmbiguous}, {"0x1F", K::kAmbiguous}, {"0o17", K::kAmbiguous},
      {"0b11", K::kAmbiguous}, {"1_000", K::kAmbiguous}, {"+1", K::kAmbiguous}, {".5", K::kAmbiguous},
      {"5.", K::kAmbiguous}, {"1.e3", K::kAmbiguous}, {"01.5", K::kAmbiguous}, {"12:30", K::kAmbiguous},
      {".inf", K::kAmbiguous}, {"-.inf", K::kAmbiguous}, {".NaN", K::kAmbiguous}, {"nan", K::kAmbiguous},
      {"yes", K::kAmbiguous}, {"No", K::kAmbiguous}, {"on", K::kAmbiguous}, {"OFF", K::kAmbiguous},
      {"True", K::kAmbiguous}, {"y", K::kAmbiguous},
      {"gpt2", K::kString}, {"1.2.3", K::kString}, {"a/b-1", K::kString}, {"12:30 pm", K::kString},
      {"1f1b", K::kString}, {"0x", K::kString}, {"-", K::kString}, {".", K::kString}, {"e5", K::kString},
      {"nonesuch", K::kString}, {"5x", K::kString}, {"0xzz", K::kString}};
  for (const auto& [text, kind] : cases)
    EXPECT_EQ(static_cast<int>(classify_plain_scalar(text)), static_cast<int>(kind)) << '"' << text << '"';
}

TEST(Yaml, NumbersThatDoNotFitAreEmpty) {
  EXPECT_EQ(parse_integer("9223372036854775807"), INT64_MAX);
  EXPECT_EQ(parse_integer("9223372036854775808"), std::nullopt);
  EXPECT_EQ(parse_integer("1.0"), std::nullopt);
  EXPECT_EQ(parse_number("2.5e-3"), 2.5e-3);
  EXPECT_EQ(parse_number("1e400"), std::nullopt);
  EXPECT_EQ(parse_number("-12"), -12.0);
}

TEST(Yaml, RejectsADuplicateKeyAtItsSecondPlace) {
  EXPECT_EQ(error_of("train:\n  steps: 1\n  b: 2\n  steps: 3\n"),
            "f.yaml:4:3: train.steps is given twice, first on line 2; remove one");
  EXPECT_EQ(error_of("data:\n  train:\n  - a\n  - {path: x, weight: 1, path: y}\n"),
            "f.yaml:4:26: data.train[1].path is given twice, first on line 4; remove one");
  EXPECT_EQ(error_of("a: 1\n\"a\": 2\n"), "f.yaml:2:1: a is given twice, first on line 1; remove one");
  EXPECT_EQ(error_of("b: 1\nc: 1\nc: 1\nb: 1\n"), "f.yaml:3:1: c is given twice, first on line 2; remove one");
}

TEST(Yaml, RejectsAnchorsAliasesAndTags) {
  EXPECT_EQ(error_of("a: &x 1\nb: *x\n"), "f.yaml:1:4: anchors (&name) are not allowed; write the value out");
  EXPECT_NE(error_of("a: *x\n").find("f.yaml:1:4: "), std::string::npos);
  EXPECT_EQ(error_of("a: !!str 1\n"), "f.yaml:1:4: tags (!name) are not allowed; remove it");
  EXPECT_EQ(error_of("a: ! 1\n"), "f.yaml:1:4: tags (!name) are not allowed; remove it");
  EXPECT_EQ(error_of("a: !x [1]\n"), "f.yaml:1:4: tags (!name) are not allowed; remove it");
  EXPECT_NE(error_of("a: &x {b: 1}\n").find("anchors"), std::string::npos);
  EXPECT_NE(error_of("a: &x [*x]\n").find("anchors"), std::string::npos);  // a cycle
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 9; ++i) {
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int j = 0; j < 9; ++j) bomb += (j ? ", *a" : "*a") + std::to_string(i - 1);
    bomb += "]\n";
  }
  EXPECT_NE(error_of(bomb).find("anchors"), std::string::npos);
}

TEST(Yaml, RejectsASecondDocumentAndKeysThatAreNotScalars) {
  EXPECT_EQ(error_of("a: 1\n---\nb: 2\n"), "f.yaml:2:1: a second document begins here; a file holds one");
  EXPECT_NE(error_of("[a, b]: 1\n").find("a key is a list or a map"), std::string::npos);
  EXPECT_NE(error_of("? {a: 1}\n: 2\n").find("a key is a list or a map"), std::string::npos);
  EXPECT_EQ(error_of("~: 1\n"), "f.yaml:1:1: a key is empty or null");
}

TEST(Yaml, RejectsTextThatIsNotCleanUtf8) {
  EXPECT_EQ(error_of("a: 1\nb: \xff\n"), "f.yaml:2:1: the line is not UTF-8; save the file as UTF-8");
  EXPECT_NE(error_of("a: \xc0\xaf\n").find("not UTF-8"), std::string::npos);          // overlong
  EXPECT_NE(error_of("a: \xed\xa0\x80\n").find("not UTF-8"), std::string::npos);      // surrogate
  EXPECT_NE(error_of("a: \xf4\x90\x80\x80\n").find("not UTF-8"), std::string::npos);  // over U+10FFFF
  EXPECT_NE(error_of("a: \xe2\x82").find("not UTF-8"), std::string::npos);            // cut
  EXPECT_EQ(error_of(std::string_view("a: 1\nb: \0x\n", 11)),
            "f.yaml:2:4: control character 0 in the text; remove it");
  EXPECT_NE(error_of(std::string_view("a\0:\0 \0""1\0", 8)).find("control character 0"), std::string::npos);
  EXPECT_EQ(at(parse_yaml("a: \xe2\x82\xac\xf0\x9f\x9a\xa3\n", "f"), "a").scalar, "\xe2\x82\xac\xf0\x9f\x9a\xa3");
}

TEST(Yaml, BoundsSizeDepthAndCount) {
  EXPECT_EQ(error_of(std::string(kMaxYamlBytes + 1, ' ')), "f.yaml: is 1048577 bytes; the limit is 1048576");
  EXPECT_EQ(error_of("a: " + std::string(kMaxYamlBytes - 3, 'x')), "no error");
  EXPECT_EQ(error_of("a: \"" + std::string(kMaxYamlBytes - 5, 'x') + "\""), "no error");
  EXPECT_EQ(error_of(std::string(kMaxYamlDepth, '[') + std::string(kMaxYamlDepth, ']')), "no error");
  EXPECT_EQ(error_of(std::string(kMaxYamlDepth + 1, '[') + std::string(kMaxYamlDepth + 1, ']')),
            "f.yaml:1:33: nested deeper than 32 levels");
  EXPECT_NE(error_of(std::string(500'000, '[')), "no error");  // never closed
  EXPECT_NE(error_of(std::string(500'000, '[') + std::string(500'000, ']')).find("nested deeper"), std::string::npos);
  EXPECT_NE(error_of(std::string(500'000, '{')), "no error");
  std::string deep;
  for (int i = 0; i < 100; ++i) deep += std::string(2 * i, ' ') + "a:\n";
  EXPECT_NE(error_of(deep).find("nested deeper"), std::string::npos);
  std::string dashes;
  for (int i = 0; i < 1000; ++i) dashes += "- ";
  EXPECT_NE(error_of(dashes).find("nested deeper"), std::string::npos);
  std::string many = "[";
  for (size_t i = 0; i < kMaxYamlNodes + 1; ++i) many += "1,";
  EXPECT_NE(error_of(many + "]").find("more than 100000 values"), std::string::npos);
}

TEST(Yaml, NamesThePlaceOfASyntaxError) {
  EXPECT_EQ(error_of("a: 1\n  b: 2\n").substr(0, 10), "f.yaml:2:4");
  for (const char* bad : {"a: [1, 2", "a: {b: 1", "a: \"x", "a: 'x", "a: b: c", "\t- a", "a: |0\n x", "@a", "`b`", "%YAML 9.9\n---\na",
                          "a: ]", "}", "a: \"\\q\"", "a: \"\\ud800\"", "? a\n? b\n- c"}) {
    const std::string error = error_of(bad);
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
    EXPECT_NE(error, "no error") << bad;
  }
}

TEST(Yaml, ReadsFilesAndNamesThoseItCannot) {
  testing::TempDir dir;
  const auto path = dir.path() / "x.yaml";
  EXPECT_THROW(read_yaml(path), ConfigError);
  EXPECT_THROW(read_yaml(dir.path()), ConfigError);
  std::ofstream(path) << "a: 5\n";
  EXPECT_EQ(at(read_yaml(path), "a").scalar, "5");
  std::ofstream(path) << std::string(kMaxYamlBytes + 10, '#');
  EXPECT_THROW(read_yaml(path), ConfigError);
  try {
    read_yaml("no/such/file.yaml");
    FAIL();
  } catch (const ConfigError& e) {
    EXPECT_STREQ(e.what(), "no/such/file.yaml: cannot open: No such file or directory");
  }
}

TEST(Yaml, BecomesTypedJson) {
  const YamlNode root = parse_yaml("a: 1\nb: 1.0\nc: 'x'\nd: null\ne: [true, {f: g}]\n", "f.yaml");
  const boost::json::value want = {{"a", 1}, {"b", 1.0}, {"c", "x"}, {"d", nullptr}, {"e", {true, {{"f", "g"}}}}};
  const boost::json::value got = yaml_to_json(root, "f.yaml");
  EXPECT_EQ(got, want);
  EXPECT_TRUE(got.at("a").is_int64());
  EXPECT_TRUE(got.at("b").is_double());
  for (const auto& [yaml, message] :
       {std::pair("a: 010", "f.yaml:1:4: 010 means different things to different YAML readers; quote it if it is a string"),
        std::pair("a: 123456789012345678901", "f.yaml:1:4: the integer 123456789012345678901 does not fit 64 bits"),
        std::pair("a: 1e400", "f.yaml:1:4: the number 1e400 does not fit a double")}) {
    try {
      yaml_to_json(parse_yaml(yaml, "f.yaml"), "f.yaml");
      ADD_FAILURE() << yaml;
    } catch (const ConfigError& e) {
      EXPECT_STREQ(e.what(), message);
    }
  }
}

TEST(Yaml, StringsAndNumbersWrittenReadBack) {
  for (const std::string text :
       {"abc", "", "null", "true", "yes", "010", "1", "1.5", "-", "--x", "a b", "a: b", "a #b", "#", "\"q\"", "back\\slash",
        "line\nend\ttab", "\x01\x7f", "\xe2\x82\xac", "[a]", "{", "*x", "&x", "!t", "%", "@", "`", "...", "---", ".", "..",
        "runs/x.y", "'", "a,b", " lead", "trail ", "\r\n", "? a", "12:30"}) {
    const YamlNode root = parse_yaml("a: " + yaml_string(text) + "  # end\nb: [" + yaml_string(text) + "]\n", "f");
    EXPECT_EQ(at(root, "a").scalar, text);
    EXPECT_EQ(at(root, "a").kind, ScalarKind::kString) << text;
    EXPECT_EQ(at(root, "b").items.at(0).scalar, text);
  }
  for (double value : {0.1, 1.0, 3e-4, 1e-300, 1.7976931348623157e308, -2.5, 1e22, 123456789.0})
    EXPECT_EQ(parse_number(yaml_number(value)), value);
}

}  // namespace
}  // namespace trireme
