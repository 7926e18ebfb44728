#include "trainer/metrics.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <csignal>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>

#include "base/files.h"
#include "base/json.h"
#include "tests/test_data.h"
#include "trainer/progress.h"
#include "trainer/run_report.h"
#include "trainer/tensorboard.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using testing::TempDir;

constexpr size_t kMaxBytes = 1 << 20;

// A reader of event files of its own, by the public formats.
struct ParsedEvent {
  double wall_time = 0;
  int64_t step = 0;
  std::string file_version;
  std::map<std::string, float> scalars;
  int64_t session_status = 0;
};

uint64_t little_endian(std::string_view bytes, size_t size) {
  uint64_t value = 0;
  for (size_t i = 0; i < size; ++i) value |= uint64_t{static_cast<uint8_t>(bytes.at(i))} << (8 * i);
  return value;
}

uint64_t take_varint(std::string_view& bytes) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<uint8_t>(bytes.at(0));
    bytes.remove_prefix(1);
    value |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return value;
  }
}

struct Field {
  uint64_t number = 0, integer = 0;  // integer: also the bits of fixed fields
  std::string_view bytes;
};

std::vector<Field> fields_of_message(std::string_view message) {
  std::vector<Field> fields;
  while (!message.empty()) {
    const uint64_t key = take_varint(message);
    Field field;
    field.number = key >> 3;
    size_t size = 0;
    switch (key & 7) {
      case 0: field.integer = take_varint(message); break;
      case 1: field.integer = little_endian(message, size = 8); break;
      case 2:
        size = take_varint(message);
        if (size > message.size()) throw std::out_of_range("length");
        field.bytes = message.substr(0, size);
        break;
      case 5: field.integer = little_endian(message, size = 4); break;
      default: throw std::runtime_error("wire type");
    }
    message.remove_prefix(size);
    fields.push_back(field);
  }
  return fields;
}

ParsedEvent parse_event(std::string_view message) {
  ParsedEvent event;
  for (const Field& f : fields_of_message(message)) {
    if (f.number == 1) event.wall_time = std::bit_cast<double>(f.integer);
    if (f.number == 2) event.step = static_cast<int64_t>(f.integer);
    if (f.number == 3) event.file_version = f.bytes;
    if (f.number == 7) event.session_status = static_cast<int64_t>(fields_of_message(f.bytes).at(0).integer);
    if (f.number != 5) continue;
    for (const Field& value : fields_of_message(f.bytes)) {
      const std::vector<Field> parts = fields_of_message(value.bytes);
      EXPECT_EQ(parts.at(0).number, 1u);
      EXPECT_EQ(parts.at(1).number, 2u);
      event.scalars[std::string(parts[0].bytes)] = std::bit_cast<float>(static_cast<uint32_t>(parts[1].integer));
    }
  }
  return event;
}

// Bit by bit, from the polynomial; to hold the table against.
uint32_t slow_masked_crc(std::string_view bytes) {
  uint32_t c = 0xffffffffu;
  for (const char byte : bytes) {
    c ^= static_cast<uint8_t>(byte);
    for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ (0x82f63b78u & (0u - (c & 1)));
  }
  c = ~c;
  return ((c >> 15) | (c << 17)) + 0xa282ead8u;
}

std::vector<ParsedEvent> parse_event_file(const fs::path& path) {
  const std::string contents = read_text_file(path, kMaxBytes);
  std::string_view rest = contents;
  std::vector<ParsedEvent> events;
  while (!rest.empty()) {
    const uint64_t size = little_endian(rest, 8);
    EXPECT_EQ(little_endian(rest.substr(8), 4), slow_masked_crc(rest.substr(0, 8)));
    const std::string_view message = rest.substr(12, size);
    EXPECT_EQ(message.size(), size);
    EXPECT_EQ(little_endian(rest.substr(12 + size), 4), slow_masked_crc(message));
    events.push_back(parse_event(message));
    rest.remove_prefix(16 + size);
  }
  return events;
}

std::vector<fs::path> event_files(const fs::path& dir) {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(dir))
    if (entry.path().filename().string().starts_with("events.out.tfevents.")) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::vector<boost::json::value> json_lines(const fs::path& path) {
  std::istringstream in(read_text_file(path, kMaxBytes));
  std::vector<boost::json::value> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(parse_json(line, path.string()));
  return lines;
}

StepMetrics step_at(int64_t step) {
  StepMetrics m;
  m.step = step;
  m.loss = 5.25 - 0.0625 * static_cast<double>(step);
  m.learning_rate = 3e-4;
  m.grad_norm = 1.25;
  m.tokens = step * 2048;
  m.tokens_per_s = 12345;
  m.mfu = 0.4125;
  m.step_s = 0.5;
  m.memory_bytes = size_t{3} << 29;
  m.eta_s = 723.4;
  return m;
}

LogSection only(bool tensorboard, bool jsonl, ProgressStyle progress = ProgressStyle::kPlain) {
  LogSection options;
  options.tensorboard = tensorboard;
  options.jsonl = jsonl;
  options.progress = progress;
  return options;
}

void write_run(const fs::path& dir, int64_t last_step, int64_t resume_step = 0) {
  std::ostringstream out;
  Reporter reporter(dir, only(false, true), 100, resume_step, &out);
  for (int64_t step = resume_step + 1; step <= last_step; ++step) {
    reporter.step(step_at(step), true);
    if (step % 5 == 0) reporter.evaluation({step, 4.5, false});
  }
}

size_t count(const std::string& haystack, const std::string& needle) {
  size_t n = 0;
  for (size_t at = haystack.find(needle); at != std::string::npos; at = haystack.find(needle, at + 1)) ++n;
  return n;
}

TEST(Crc32c, MatchesThePublishedVectors) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(crc32c(""), 0u);
}

TEST(EventFile, HoldsTheVersionThenARestartThenTheScalars) {
  TempDir dir;
  std::ostringstream out;
  {
    Reporter reporter(dir.path(), only(true, false), 1000, 0, &out);
    reporter.step(step_at(3), true);
    reporter.step(step_at(4), false);
    reporter.evaluation({300, 2.5, true});
  }
  ASSERT_EQ(event_files(dir.path()).size(), 1u);
  const std::vector<ParsedEvent> events = parse_event_file(event_files(dir.path())[0]);
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0].file_version, "brain.Event:2");
  EXPECT_EQ(events[1].session_status, 1);
  EXPECT_EQ(events[1].step, 1);
  EXPECT_EQ(events[2].step, 3);
  EXPECT_GT(events[2].wall_time, 1.6e9);
  const std::map<std::string, float> want = {{"train/loss", 5.0625f},
                                             {"train/learning_rate", 3e-4f},
                                             {"train/grad_norm", 1.25f},
                                             {"train/tokens_per_s", 12345.f},
                                             {"train/mfu", 0.4125f}};
  EXPECT_EQ(events[2].scalars, want);
  EXPECT_EQ(events[3].step, 300);  // a varint of two bytes
  EXPECT_EQ(events[3].scalars, (std::map<std::string, float>{{"validation/loss", 2.5f},
                                                             {"validation/perplexity", std::exp(2.5f)}}));
}

TEST(EventFile, AResumedRunWritesANewFileThatVoidsLaterSteps) {
  TempDir dir;
  std::ostringstream out;
  { Reporter reporter(dir.path(), only(true, false), 1000, 0, &out); }
  { Reporter reporter(dir.path(), only(true, false), 1000, 40, &out); }
  const std::vector<fs::path> files = event_files(dir.path());
  ASSERT_EQ(files.size(), 2u);
  EXPECT_EQ(parse_event_file(files[1]).at(1).session_status, 1);
  EXPECT_EQ(parse_event_file(files[1]).at(1).step, 41);
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
  for (const std::string& damage : {std::string("{\"type\":\"step\",\"st"), std::string("{\"type\":\"step\",\"step\":4}"),
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
  EXPECT_EQ(JsonObject(lines[lines.size() - 2], "before").integer("step"), static_cast<int64_t>(lines.size()) - 1);
  EXPECT_EQ(parse_event_file(event_files(dir.path()).at(0)).back().step, 31);
}

TEST(Progress, PlainLinesAreOneALoggedStep) {
  TempDir dir;
  std::ostringstream out;
  Reporter reporter(dir.path(), only(false, false), 100, 0, &out);
  StepMetrics skipped = step_at(3);
  skipped.mfu = 0;
  skipped.skipped = true;
  reporter.step(step_at(1), true);
  reporter.step(step_at(2), false);
  reporter.step(skipped, true);
  reporter.evaluation({3, 2.5, true});
  reporter.note("saved");
  reporter.warning("slow");
  EXPECT_EQ(out.str(),
            "step 1/100  loss 5.1875  lr 3.00e-04  grad 1.25  12.3k tok/s  MFU 41.2%  1.50 GiB  ETA 0:12:03\n"
            "step 3/100  loss 5.0625  lr 3.00e-04  grad 1.25  12.3k tok/s  1.50 GiB  ETA 0:12:03  skipped\n"
            "step 3  validation loss 2.5000  perplexity 12.18  best so far\n"
            "saved\n"
            "warning: slow\n");
}

TEST(Progress, TheBarIsRedrawnInPlaceWithNotesAboveIt) {
  std::ostringstream out;
  {
    Progress progress(out, ProgressStyle::kBar, 10, 60);
    progress.step(step_at(5), true);
    const std::string bar = "\r\033[K[==========          ] 5/10  loss 4.9375  lr 3.00e-04  grad";
    EXPECT_EQ(out.str(), bar.substr(0, 4 + 59));
    progress.line("a note");
    EXPECT_EQ(out.str(), bar.substr(0, 63) + "\r\033[Ka note\n" + bar.substr(0, 63));
    out.str("");
    progress.step(step_at(10), true);
    EXPECT_TRUE(out.str().starts_with("\r\033[K[====================] 10/10"));
    EXPECT_EQ(count(out.str(), "\n"), 0u);
  }
  EXPECT_TRUE(out.str().ends_with("\n"));  // what comes next starts a line of its own
}

TEST(Progress, NoneShowsNotesAlone) {
  std::ostringstream out;
  Progress progress(out, ProgressStyle::kNone, 10, 60);
  progress.step(step_at(5), true);
  progress.evaluation({5, 2.5, true});
  progress.line("a note");
  EXPECT_EQ(out.str(), "a note\n");
}

TEST(Progress, TextOfAModelCannotSteerTheTerminal) {
  EXPECT_EQ(printable("a\033[2Jb\r\n\tc\x7f\xc2\x9b \xc3\xa9\xc2"), "a?[2Jb?\n\tc?? \xc3\xa9\xc2");
}

TEST(Progress, FormatsCountsBytesAndTimes) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999.4), "999");
  EXPECT_EQ(format_count(999.6), "1.00k");
  EXPECT_EQ(format_count(12345), "12.3k");
  EXPECT_EQ(format_count(999600), "1.00M");
  EXPECT_EQ(format_count(7.891e9), "7.89G");
  EXPECT_EQ(format_count(5e15), "5000T");
  EXPECT_EQ(format_bytes(size_t{512} << 20), "512 MiB");
  EXPECT_EQ(format_bytes(size_t{3} << 29), "1.50 GiB");
  EXPECT_EQ(format_duration(65), "0:01:05");
  EXPECT_EQ(format_duration(97200), "27:00:00");
  EXPECT_EQ(format_duration(std::nan("")), "?");
  EXPECT_EQ(format_duration(-1), "?");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::infinity()), "?");
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
}  // namespace trireme
