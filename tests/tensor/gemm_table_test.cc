#include "tensor/gemm_table.h"

#include <omp.h>

#include <cstring>

#include "base/error.h"
#include "tests/tensor/op_testing.h"
#include "tests/test_data.h"

namespace trireme::testing {
namespace {

// Puts the rules back when a test ends.
struct RestoreTable {
  GemmTable before = gemm_table();
  ~RestoreTable() { use_gemm_table(before); }
};

TEST(GemmTable, RulesUseBf16UnitsOnlyWhereTheyPay) {
  const GemmShape train{false, true, 1024, 2304, 768, DType::kBF16, DType::kBF16};
  EXPECT_EQ(GemmTable(Bf16Units::kAmx).choose(train, 2), GemmBackend::kOwn);
  for (GemmShape s : {GemmShape{false, false, 1024, 2304, 768}, {false, true, 1024, 31, 768}, {false, true, 1024, 64, 760}}) {
    s.in = s.out = DType::kBF16;  // input gradients, and weights that are not whole tiles
    EXPECT_EQ(GemmTable(Bf16Units::kAmx).choose(s, 2), GemmBackend::kOneDnnMatmul);
  }
  EXPECT_EQ(GemmTable(Bf16Units::kDotProduct).choose(train, 2), GemmBackend::kOneDnnSgemm);
  EXPECT_EQ(GemmTable(Bf16Units::kNone).choose(train, 2), GemmBackend::kOneDnnSgemm);
  for (Bf16Units units : {Bf16Units::kNone, Bf16Units::kDotProduct, Bf16Units::kAmx}) {
    EXPECT_EQ(GemmTable(units).choose({false, true, 1024, 2304, 768}, 2), GemmBackend::kOneDnnSgemm);
    EXPECT_EQ(GemmTable(units).choose({false, true, 1, 2304, 768}, 2), GemmBackend::kOwn);
    EXPECT_EQ(GemmTable(units).choose({false, true, 64, 2304, 768}, 2), GemmBackend::kOwn);
    EXPECT_EQ(GemmTable(units).choose({false, true, 65, 2304, 768}, 2), GemmBackend::kOneDnnSgemm);
    EXPECT_EQ(GemmTable(units).choose({false, false, 1, 2304, 768}, 2), GemmBackend::kOneDnnSgemm);
    EXPECT_EQ(GemmTable(units).choose({true, false, 8, 8, 8}, 2), GemmBackend::kOwn);
  }
}

TEST(GemmTable, AnEntryCoversItsClassAndNoOther) {
  GemmTable table(Bf16Units::kNone);
  table.set({false, true, 1000, 2304, 768}, 2, GemmBackend::kOneDnnMatmul);
  const auto chosen = [&](GemmShape s, int threads = 2) { return table.choose(s, threads); };
  const auto entry = GemmBackend::kOneDnnMatmul, rule = GemmBackend::kOneDnnSgemm;
  EXPECT_EQ(chosen({false, true, 1024, 2304, 768}), entry);
  EXPECT_EQ(chosen({false, true, 725, 1449, 725}), entry);   // just above 2^9.5, 2^10.5
  EXPECT_EQ(chosen({false, true, 1448, 2896, 1448}), entry);  // just below 2^10.5, 2^11.5
  EXPECT_EQ(chosen({false, true, 724, 2304, 768}), rule);
  EXPECT_EQ(chosen({false, true, 1449, 2304, 768}), rule);
  EXPECT_EQ(chosen({false, true, 1024, 2897, 768}), rule);
  EXPECT_EQ(chosen({false, true, 1024, 2304, 1449}), rule);
  EXPECT_EQ(chosen({false, true, 1024, 2304, 768}, 1), rule);
  EXPECT_EQ(chosen({false, false, 1024, 2304, 768}), rule);
  EXPECT_EQ(chosen({true, true, 1024, 2304, 768}), rule);
  EXPECT_EQ(chosen({false, true, 1024, 2304, 768, DType::kBF16, DType::kBF16}), rule);
  EXPECT_EQ(chosen({false, true, 1024, 2304, 768, DType::kBF16, DType::kF32}), rule);
  table.set({false, true, 1024, 2304, 768}, 2, GemmBackend::kOwn);
  EXPECT_EQ(table.num_entries(), 1u);
  EXPECT_EQ(chosen({false, true, 1000, 2304, 768}), GemmBackend::kOwn);
}

TEST(GemmTable, TextRoundTripsThroughAFile) {
  GemmTable table(Bf16Units::kAmx);
  table.set({false, true, 1024, 50257, 768}, 2, GemmBackend::kOpenBlas);
  table.set({true, false, 3, 1, 0, DType::kBF16, DType::kF32}, 1, GemmBackend::kOwn);
  table.set({true, true, int64_t{1} << 39, 7, 9, DType::kF16, DType::kF16}, 4096, GemmBackend::kOneDnnSgemm);
  const TempDir dir;
  table.save(dir.path() / "gemm.txt");
  EXPECT_TRUE(GemmTable::load(dir.path() / "gemm.txt") == table);
  EXPECT_FALSE(GemmTable::load(dir.path() / "gemm.txt") == GemmTable(Bf16Units::kAmx));
  EXPECT_CONTAINS(table.to_text(), "trireme gemm table 1\nrules amx_bf16\n");
  EXPECT_CONTAINS(table.to_text(), "nt f32 f32 1024 65536 1024 2 openblas\n");
  EXPECT_TRUE(GemmTable::parse(GemmTable(Bf16Units::kNone).to_text(), "x") == GemmTable(Bf16Units::kNone));
}

TEST(GemmTable, ParsingNamesTheLineAndWhatIsWrong) {
  const std::string head = "trireme gemm table 1\nrules f32_only\n";
  const auto message = [](const std::string& contents) {
    return message_of<FileError>([&] { GemmTable::parse(contents, "t.txt"); });
  };
  EXPECT_CONTAINS(message(""), "t.txt: line 1: the file ends before its rules");
  EXPECT_CONTAINS(message("trireme gemm table 2\n"), "line 1: want \"trireme gemm table 1\"");
  EXPECT_CONTAINS(message("trireme gemm table 1\nrules sse\n"), "line 2: rules \"sse\" are unknown");
  EXPECT_CONTAINS(message(head + "# fine\n\nnt f32 f32 8 8 8 2\n"), "line 5: want 8 words");
  EXPECT_CONTAINS(message(head + "xt f32 f32 8 8 8 2 own\n"), "line 3: op \"xt\"");
  EXPECT_CONTAINS(message(head + "nt f32 bf16 8 8 8 2 own\n"), "types \"f32 bf16\" do not go together");
  EXPECT_CONTAINS(message(head + "nt i32 i32 8 8 8 2 own\n"), "types \"i32 i32\"");
  for (const char* size : {"0", "-8", "9", "8x", "99999999999999999999", "2199023255552"})
    EXPECT_CONTAINS(message(head + "nt f32 f32 8 " + size + " 8 2 own\n"), text("size \"", size, "\""));
  EXPECT_CONTAINS(message(head + "nt f32 f32 8 8 8 0 own\n"), "threads \"0\"");
  EXPECT_CONTAINS(message(head + "nt f32 f32 8 8 8 5000 own\n"), "threads \"5000\"");
  EXPECT_CONTAINS(message(head + "nt f32 f32 8 8 8 2 blis\n"), "backend \"blis\" is unknown");
  const std::string line = "nt f32 f32 8 8 8 2 own\n";
  EXPECT_CONTAINS(message(head + line + line), "line 4: this class was given before");
  EXPECT_CONTAINS(message_of<FileError>([] { GemmTable::load("/nonexistent/gemm.txt"); }), "/nonexistent/gemm.txt");
}

TEST(GemmTable, TheTableInForceDecidesWhatGemmRuns) {
  const RestoreTable restore;
  const GemmShape s{false, true, 70, 90, 333};
  const Tensor a = random({70, 333}, DType::kF32, 1), b = random({90, 333}, DType::kF32, 2);
  for (GemmBackend backend : {GemmBackend::kOwn, GemmBackend::kOneDnnSgemm}) {
    GemmTable table;
    table.set(s, gemm_threads(), backend);
    use_gemm_table(table);
    EXPECT_TRUE(gemm_table() == table);
    Tensor by_table = empty({70, 90}, DType::kF32), by_name = empty({70, 90}, DType::kF32);
    gemm(s, 1, a.raw(), 333, b.raw(), 333, 0, by_table.raw(), 90);
    gemm_with(backend, s, 1, a.raw(), 333, b.raw(), 333, 0, by_name.raw(), 90);
    expect_equal(by_table, by_name, std::string(name_of(backend)));
  }
}

TEST(GemmTable, MeasuringGivesAnEntryForEachShapeThatNamesAnAvailableBackend) {
  const GemmShape shapes[] = {{false, true, 4, 256, 64}, {true, false, 64, 64, 128, DType::kBF16, DType::kF32}};
  const auto timings = time_gemm(shapes, 3);
  ASSERT_EQ(timings.size(), 2u);
  for (const GemmTiming& t : timings) {
    ASSERT_GE(t.candidates.size(), 2u);
    for (size_t i = 0; i < t.candidates.size(); ++i) {
      EXPECT_GT(t.candidates[i].seconds, 0);
      EXPECT_TRUE(gemm_available(t.candidates[i].backend, t.shape));
      if (i > 0) { EXPECT_GE(t.candidates[i].seconds, t.candidates[i - 1].seconds); }
    }
  }
  const GemmTable table = measure_gemm(shapes, 3);
  EXPECT_EQ(table.num_entries(), 2u);
  EXPECT_CONTAINS(message_of<ConfigError>([&] { time_gemm(shapes, 0); }), "0 rounds");
}

TEST(GemmTable, RateCountsTwoFlopsForEachMultiplyAddAndKeepsTheThreadCount) {
  const int threads = omp_get_max_threads();
  const double rate = measure_gemm_rate(1);
  EXPECT_EQ(omp_get_max_threads(), threads);
  EXPECT_GT(rate, 1e8);
  EXPECT_LT(rate, 1e14);
  EXPECT_CONTAINS(message_of<ConfigError>([] { measure_gemm_rate(0); }), "0 threads");
}

}  // namespace
}  // namespace trireme::testing
