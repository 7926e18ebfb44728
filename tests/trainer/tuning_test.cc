#include "trainer/tuning.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace trireme {
namespace {

Tuning measured() {
  Tuning t;
  t.products = GemmTable(Bf16Units::kNone);
  t.products.set({false, true, 1024, 2304, 768, DType::kF32, DType::kF32}, 2, GemmBackend::kOneDnnMatmul);
  t.products.set({true, false, 768, 768, 1024, DType::kBF16, DType::kF32}, 1, GemmBackend::kOwn);
  return t;
}

CollectiveTable by_mpi() {
  CollectiveTable table;
  table.set({OpKind::kAllReduce, DType::kF32, {2, 4}, 1 << 16}, CollectiveWay::kMpi);
  return table;
}

TEST(Tuning, TextReadsBackToTheSameChoices) {
  const Tuning t = measured();
  EXPECT_EQ(Tuning::parse(t.to_text(), "t"), t);
  EXPECT_EQ(Tuning::parse("# by hand\n\n" + t.to_text() + "\n# end\n", "t"), t);
  EXPECT_EQ(Tuning::parse(Tuning().to_text(), "t"), Tuning());
  Tuning both = t;
  both.collectives = by_mpi();
  EXPECT_EQ(Tuning::parse(both.to_text(), "t"), both);
  EXPECT_NE(both, t);
  const std::string contents = both.to_text();
  const size_t second = contents.find("[collectives]"), first = contents.find("[products]");
  EXPECT_EQ(Tuning::parse(contents.substr(0, first) + contents.substr(second) + contents.substr(first, second - first), "t"), both);
}

std::string error_of(const std::string& contents) {
  try {
    Tuning::parse(contents, "tuning.txt");
  } catch (const FileError& e) {
    return e.what();
  }
  return "";
}

TEST(Tuning, SaysWhatIsWrongWithAFile) {
  const std::string good = measured().to_text();
  EXPECT_EQ(error_of(""), "tuning.txt: the file ends before trireme tuning 1");
  EXPECT_EQ(error_of("trireme tuning 1\n"), "tuning.txt: the file ends before [products]");
  EXPECT_EQ(error_of("trireme tuning 2\n"), "tuning.txt: line 1: want \"trireme tuning 1\"");
  EXPECT_EQ(error_of(good + "[weather]\n"), "tuning.txt: line 8: \"[weather]\" is no section; want [products] or [collectives]");
  EXPECT_EQ(error_of(good + "[products]\n"), "tuning.txt: line 8: [products] was given before");
  EXPECT_NE(error_of("trireme tuning 1\n[products]\ntrireme gemm table 1\n").find("tuning.txt, [products]: line 2"), std::string::npos);
  EXPECT_EQ(error_of(good + "[collectives]\nall\n"), "tuning.txt, [collectives]: line 1: want \"trireme collective table 1\"");
  EXPECT_EQ(error_of("trireme tuning 1\n[collectives]\ntrireme collective table 1\n"),
            "tuning.txt: the file ends before [products]");
  for (size_t size = 0; size < good.size(); ++size) error_of(good.substr(0, size));  // no crash, whatever the cut
}

TEST(Tuning, ProductsOfAModelAreThoseOfItsLayersAtTheLayout) {
  ModelConfig m;
  m.model_type = "llama";
  m.vocab_size = 1001;
  m.hidden_size = 64;
  m.num_attention_heads = 8;
  m.num_key_value_heads = 2;
  m.head_dim = 8;
  m.intermediate_size = 160;
  std::vector<std::string> names;
  for (const GemmShape& s : training_products(m, 96, 2, DType::kBF16)) names.push_back(text(s));
  const auto has = [&](const char* name) { return std::count(names.begin(), names.end(), name) == 1; };
  EXPECT_TRUE(has("nt bf16->bf16 96x48x64"));    // queries, keys and values of one rank
  EXPECT_TRUE(has("tn bf16->f32 48x64x96"));
  EXPECT_TRUE(has("nn bf16->bf16 96x80x64"));    // into the gate's and up's columns, down's input
  EXPECT_TRUE(has("nt bf16->bf16 96x160x64"));   // gate and up
  EXPECT_TRUE(has("nt bf16->bf16 96x501x64"));   // the vocabulary, padded
  EXPECT_EQ(names.size(), 15u);
}

}  // namespace
}  // namespace trireme
