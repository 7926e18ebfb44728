#include "trainer/metrics.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <fstream>
#include <limits>
#include <sstream>

#include "base/files.h"
#include "base/json.h"
#include "tests/test_data.h"
#include "tests/trainer/event_reader.h"
#include "tests/trainer/metrics_samples.h"
#include "trainer/run_report.h"

namespace trireme::testing {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxBytes = 1 << 20;

std::vector<boost::json::value> json_lines(const fs::path& path) {
  std::istringstream in(read_text_file(path, kMaxBytes));
  std::vector<boost::json::value> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(parse_json(line, path.string()));
  return lines;
}

void write_run(const fs::path& dir, int64_t last_step, int64_t resume_step = 0) {
  std::ostringstream out;
  Reporter reporter(dir, only(false, true), 100, resume_step, &out);
  for (int64_t step = resume_step + 1; step <= last_step; ++step) {
    reporter.step(step_at(step), true);
    if (step % 5 == 0) reporter.evaluation({step, 4.5, false});
  }
}

TEST(MetricsLog, HasALineForEachLoggedStepAndEvaluation) {
  TempDir dir;
  std::ostringstream out;
  Reporter reporter(dir.path(), only(false, true), 100, 0, &out);
  StepMetrics bad = step_at(2);
  bad.loss = std::numeric_limits<double>::quiet_NaN();
  bad.mfu = 0;
  bad.skipped = true;
  reporter.step(step_at(1), true);
  reporter.step(bad, true);
  reporter.step(step_at(3), false);
  reporter.evaluation({3, 2.5, true});
  // Read while the run goes: each line is there once the call returns.
  const std::vector<boost::json::value> lines = json_lines(dir.path() / "metrics.jsonl");
  ASSERT_EQ(lines.size(), 3u);
  const JsonObject first(lines[0], "line 1"), second(lines[1], "line 2"), third(lines[2], "line 3");
  EXPECT_EQ(first.string("type"), "step");
  EXPECT_EQ(first.integer("step"), 1);
  EXPECT_EQ(first.number("loss"), 5.1875);
  EXPECT_EQ(first.integer("tokens"), 2048);
  EXPECT_EQ(first.number("mfu"), 0.4125);
  EXPECT_EQ(first.integer("memory_bytes"), 3 << 29);
  EXPECT_FALSE(first.boolean("skipped"));
  EXPECT_FALSE(second.has("loss"));
  EXPECT_FALSE(second.has("mfu"));
  EXPECT_TRUE(second.boolean("skipped"));
  EXPECT_EQ(third.string("type"), "evaluation");
  EXPECT_EQ(third.number("loss"), 2.5);
  EXPECT_NEAR(third.number("perplexity"), 12.18249396, 1e-7);
  EXPECT_TRUE(third.boolean("best"));
}

TEST(MetricsLog, AResumeDropsTheLinesPastItsStepAndGoesOnFromThere) {
  TempDir dir;
  write_run(dir.path(), 12);
  write_run(dir.path(), 8, 6);
  std::vector<std::pair<std::string, int64_t>> found, want;
  for (const boost::json::value& line : json_lines(dir.path() / "metrics.jsonl"))
    found.emplace_back(JsonObject(line, "line").string("type"), JsonObject(line, "line").integer("step"));
  for (int64_t step = 1; step <= 8; ++step) {
    want.emplace_back("step", step);
    if (step == 5) want.emplace_back("evaluation", step);
  }
  EXPECT_EQ(found, want);
}

TEST(MetricsLog, ANewRunInTheFolderStartsWithNoLines) {
  TempDir dir;
  write_run(dir.path(), 12);
  write_run(dir.path(), 3);
  EXPECT_EQ(json_lines(dir.path() / "metrics.jsonl").size(), 3u);
}

TEST(MetricsLog, ALineThatAKillCutShortIsDropped) {
  const fs::path name = "metrics.jsonl";
  for (const std::string& damage :
       {std::string("{\"type\":\"step\",\"st"), std::string("{\"type\":\"step\",\"step\":4}"),
        std::string("\0\0\0\n", 4), std::string("[1]\n"), std::string("{\"step\":4}\n")}) {
    TempDir dir;
    write_run(dir.path(), 3);
    std::ofstream(dir.path() / name, std::ios::app) << damage;
    std::ostringstream out;
    Reporter reporter(dir.path(), only(false, true), 100, 10, &out);
    reporter.step(step_at(11), true);
    EXPECT_EQ(json_lines(dir.path() / name).size(), 4u) << damage;
    EXPECT_NE(out.str().find("warning: " + (dir.path() / name).string() + ": dropped 1 damaged line\n"),
              std::string::npos)
        << out.str();
  }
}

TEST(Reporter, WarnsOnceWhereAFileOfMetricsCannotBeOpened) {
  TempDir dir;
  fs::create_directory(dir.path() / "metrics.jsonl");
  std::ostringstream out;
  Reporter reporter(dir.path(), only(false, true), 100, 0, &out);
  for (int64_t step = 1; step < 5; ++step) reporter.step(step_at(step), true);
  EXPECT_EQ(count(out.str(), "warning: "), 1u) << out.str();
  EXPECT_EQ(count(out.str(), "training goes on"), 1u);
  EXPECT_EQ(count(out.str(), "step "), 4u);
}

// The limit on a file's size stands in for a full disk: the write that crosses it is cut short, as there.
TEST(Reporter, AFullDiskIsWarnedOfOnceAndLeavesWholeLines) {
  TempDir dir;
  std::ostringstream out;
  Reporter reporter(dir.path(), only(true, true), 100, 0, &out);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 1000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  for (int64_t step = 1; step <= 30; ++step) reporter.step(step_at(step), true);
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, old_handler);
  const std::string warned = out.str();
  EXPECT_EQ(count(warned, "warning: "), 2u) << warned;  // one a file
  EXPECT_EQ(count(warned, "metrics.jsonl: cannot write: File too large"), 1u);

  // Space came back: the next line follows the last whole one.
  reporter.step(step_at(31), true);
  const std::vector<boost::json::value> lines = json_lines(dir.path() / "metrics.jsonl");
  ASSERT_GE(lines.size(), 3u);
  ASSERT_LT(lines.size(), 20u);
  EXPECT_EQ(JsonObject(lines.back(), "last").integer("step"), 31);
  EXPECT_EQ(JsonObject(lines[lines.size() - 2], "before").integer("step"),
            static_cast<int64_t>(lines.size()) - 1);
  EXPECT_EQ(parse_event_file(event_files(dir.path()).at(0)).back().step, 31);
}

RunSummary example_summary() {
  RunSummary s;
  s.steps = 1000;
  s.tokens = 4'096'000;
  s.total_s = 200;
  s.tokens_per_s = 20480;
  s.mfu = 0.375;
  s.compute_s = 120;
  s.communication_s = 20;
  s.bubble_s = 10;
  s.optimizer_s = 8;
  s.data_s = 2;
  s.evaluation_s = 30;
  s.checkpoint_s = 6;
  s.other_s = 4;
  s.effective_time_ratio = 0.8;
  s.peak_memory_bytes = size_t{3} << 29;
  s.first_loss = 10.8;
  s.last_loss = 3.25;
  s.best_validation_loss = 2.5;
  return s;
}

TEST(Summary, TellsRatesSharesAndLosses) {
  EXPECT_EQ(summary_table(example_summary()),
            "summary of the run\n"
            "  steps                 1000\n"
            "  tokens                4.10M\n"
            "  time                  0:03:20\n"
            "  tokens/s              20.5k\n"
            "  MFU                   37.5%\n"
            "  peak memory           1.50 GiB (largest rank)\n"
            "  share of the time\n"
            "    compute              60.0%      120.00 s\n"
            "    communication        10.0%       20.00 s\n"
            "    pipeline bubble       5.0%       10.00 s\n"
            "    optimizer             4.0%        8.00 s\n"
            "    data                  1.0%        2.00 s\n"
            "    evaluation           15.0%       30.00 s\n"
            "    checkpoint            3.0%        6.00 s\n"
            "    other                 2.0%        4.00 s\n"
            "  effective time        80.0% (in steps that counted)\n"
            "  loss                  10.8000 first, 3.2500 last\n"
            "  best validation loss  2.5000 (perplexity 12.18)");
  RunSummary s = example_summary();
  s.best_validation_loss = std::numeric_limits<double>::infinity();
  s.mfu = 0;
  s.earlier_s = 3600;
  EXPECT_EQ(count(summary_table(s), "time                  0:03:20, and 1:00:00 in the starts before\n"), 1u);
  EXPECT_EQ(count(summary_table(s), "validation"), 0u);
  EXPECT_EQ(count(summary_table(s), "MFU"), 0u);
}

TEST(Summary, WritesTheTableTheLineAndTheCurve) {
  TempDir dir;
  write_run(dir.path(), 30);
  std::ostringstream out;
  Reporter reporter(dir.path(), only(false, true), 40, 24, &out);
  for (int64_t step = 25; step <= 40; ++step) reporter.step(step_at(step), true);
  reporter.summary(example_summary());
  EXPECT_TRUE(out.str().ends_with(summary_table(example_summary()) + "\n"));
  const boost::json::value last = json_lines(dir.path() / "metrics.jsonl").back();
  EXPECT_EQ(JsonObject(last, "last").string("type"), "summary");
  EXPECT_EQ(JsonObject(last, "last").number("bubble_s"), 10);

  // 24 steps and 4 evaluations of before the resume, and 16 steps.
  Series training, validation;
  for (int64_t step = 1; step <= 40; ++step) {
    training.x.push_back(static_cast<double>(step));
    training.y.push_back(step_at(step).loss);
    if (step % 5 == 0 && step <= 24) validation.x.push_back(static_cast<double>(step));
  }
  validation.y.assign(validation.x.size(), 4.5);
  const std::string svg = read_text_file(dir.path() / "curve.svg", kMaxBytes);
  EXPECT_EQ(svg, curve_svg(training, validation));
  EXPECT_EQ(count(svg, "training, mean of 5"), 1u);
  EXPECT_GE(count(svg, "<polyline"), 3u);
}

TEST(Summary, ARunWithoutALoggedStepStillHasACurve) {
  TempDir dir;
  std::ostringstream out;
  Reporter(dir.path(), only(false, false), 40, 0, &out).summary(RunSummary{});
  EXPECT_EQ(count(read_text_file(dir.path() / "curve.svg", kMaxBytes), "no data"), 1u);
  EXPECT_FALSE(fs::exists(dir.path() / "metrics.jsonl"));
  EXPECT_TRUE(event_files(dir.path()).empty());
}

}  // namespace
}  // namespace trireme::testing
