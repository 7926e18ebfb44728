#include "data/records.h"

#include <gtest/gtest.h>

#include <random>

#include "base/files.h"
#include "tests/test_data.h"

namespace trireme {
namespace {

using Strings = std::vector<std::string>;
using Rows = std::vector<std::vector<Strings>>;
using Format = RecordFormat;

class Records : public ::testing::Test {
 protected:
  std::filesystem::path file(const std::string& name, const std::string& contents) {
    write_file_atomically(folder_.path() / name, contents);
    return folder_.path() / name;
  }
  // The fields of all rows of one file.
  Rows rows(Format format, const std::string& contents, Strings columns = {}, bool header = true) {
    return rows({.format = format, .paths = {file("f", contents)}, .columns = columns, .header = header});
  }
  Rows rows(const RecordSource& source) {
    const auto reader = open_records(source);
    Rows all;
    for (Record row; reader->next(row);) all.push_back(row.fields);
    EXPECT_EQ(reader->rows(), static_cast<int64_t>(all.size()));
    return all;
  }
  std::string message(const RecordSource& source) {
    try {
      rows(source);
    } catch (const Error& error) {
      std::string what = error.what();
      const std::string folder = folder_.path().string() + "/";
      for (size_t at; (at = what.find(folder)) != std::string::npos;) what.erase(at, folder.size());
      return what;
    }
    return "nothing was thrown";
  }
  std::string message(Format format, const std::string& contents, Strings columns = {}, bool header = true) {
    return message(
        RecordSource{.format = format, .paths = {file("f", contents)}, .columns = columns, .header = header});
  }
  testing::TempDir folder_;
};

// Rows of plain fields.
Rows plain(const std::vector<Strings>& rows) {
  Rows all;
  for (const Strings& row : rows) {
    all.emplace_back();
    for (const std::string& field : row) all.back().push_back({field});
  }
  return all;
}

TEST_F(Records, TsvHasNoQuotesAndColumnsByNameInTheOrderAsked) {
  const std::string tsv = "\xEF\xBB\xBFid\tsentence\tlabel\r\n1\ta \"b, c\t0\r\n\r\n2\t\t1";
  EXPECT_EQ(rows(Format::kTsv, tsv, {"label", "sentence"}), plain({{"0", "a \"b, c"}, {"1", ""}}));
  EXPECT_EQ(rows(Format::kTsv, tsv, {"last", "1"}), plain({{"0", "1"}, {"1", "2"}}));
  EXPECT_EQ(rows(Format::kTsv, tsv), plain({{"1", "a \"b, c", "0"}, {"2", "", "1"}}));
  EXPECT_EQ(rows(Format::kTsv, "a b\t1\nc\t0\n", {"2", "1"}, false), plain({{"1", "a b"}, {"0", "c"}}));
}

TEST_F(Records, RowsKnowTheirFileAndLine) {
  const auto path = file("f", "a,b\n\"x\ny\",1\n\nz,2\n");
  const auto reader = open_records({.format = Format::kCsv, .paths = {path}, .columns = {"a"}});
  EXPECT_EQ(reader->columns(), Strings{"a"});
  Record row;
  ASSERT_TRUE(reader->next(row));
  EXPECT_EQ(row.text(0), "x\ny");
  EXPECT_EQ(row.where, path.string() + ":2");
  ASSERT_TRUE(reader->next(row));
  EXPECT_EQ(row.where, path.string() + ":5");
  EXPECT_FALSE(reader->next(row));
}

TEST_F(Records, CsvObeysQuotes) {
  EXPECT_EQ(rows(Format::kCsv, "a,b\n\"x, \"\"y\"\"\r\n2\",1\r\n 5\" pipe ,\"\"\r\n,\n"),
            plain({{"x, \"y\"\r\n2", "1"}, {" 5\" pipe ", ""}, {"", ""}}));
  EXPECT_EQ(message(Format::kCsv, "a,b\n1,2\n\"x,1\nz,2\n"),
            "f:3: a field begins with a quote that has no end");
  EXPECT_EQ(message(Format::kCsv, "a,b\n\"x\"y,1\n"), "f:2: has text behind the closing quote of a field");
}

TEST_F(Records, TablesOfSeveralFilesEachHaveTheirHeader) {
  const auto one = file("one", "text\tlabel\na\t1\n"), two = file("two", "label\ttext\n2\tb\n");
  EXPECT_EQ(rows({.format = Format::kTsv, .paths = {one, two}, .columns = {"text", "label"}}),
            plain({{"a", "1"}, {"b", "2"}}));
  EXPECT_EQ(message({.format = Format::kTsv, .paths = {one, two}}),
            "two:1: has other columns than the file before; name those that are wanted");
}

TEST_F(Records, TablesNameWhatIsWrong) {
  EXPECT_EQ(message(Format::kTsv, "sentence\tlable\na\t1\n", {"sentence", "label"}),
            "f:1: has no column \"label\"; there are \"sentence\", \"lable\"; did you mean \"lable\"?");
  EXPECT_EQ(message(Format::kTsv, "a\t1\n", {"3"}, false),
            "f:1: has no column \"3\"; columns are numbers, there are 2");
  EXPECT_EQ(message(Format::kTsv, "a\t1\n", {"0"}, false),
            "f:1: has no column \"0\"; columns are numbers, there are 2");
  EXPECT_EQ(message(Format::kTsv, "a\tb\n1\t2\n1\t2\t3\n"), "f:3: has 3 columns, the header 2");
  EXPECT_EQ(message(Format::kTsv, "1\t2\n1\n", {}, false), "f:2: has 1 column, the first row 2");
  EXPECT_EQ(message(Format::kTsv, "a\ta\n1\t2\n"), "f:1: the column \"a\" is there twice");
  EXPECT_EQ(message(Format::kTsv, ""), "f: is empty; the first line must name the columns");
  EXPECT_EQ(message(Format::kTsv, "\xEF\xBB\xBF"), "f: is empty; the first line must name the columns");
  EXPECT_EQ(message(Format::kTsv, "a\tb\n\n"), "f: no row");
  EXPECT_EQ(message(Format::kTsv, "a\tb\n1\t\xFF\n"), "f:2: is not UTF-8 at byte 2 of the row");
  EXPECT_EQ(message(Format::kTsv, std::string("a\tb\n1\t2\0\n", 9)), "f:2: holds a NUL at byte 3 of the row");
  EXPECT_EQ(message(Format::kTsv, "a\n" + std::string((16 << 20) + 1, 'x')),
            "f:2: a row of 16777217 bytes; at most 16777216 are supported");
  EXPECT_EQ(message(Format::kTsv, "\xFF\n1\n"), "f:1: is not UTF-8 at byte 0 of the row");
  EXPECT_EQ(message({.format = Format::kTsv, .paths = {folder_.path() / "none"}}),
            "none: cannot open: No such file or directory");
  EXPECT_EQ(message(RecordSource{}), "no file to read rows from is given");
}

TEST_F(Records, SkippedRowsAreCountedWithTheFirstReasons) {
  std::string tsv = "a\tb\n1\t2\n";
  for (int i = 0; i < 7; ++i) tsv += "bad\n";
  tsv += "3\t4\n5\t\xC0\n6\t7\n";
  const auto path = file("f", tsv);
  const auto reader = open_records({.format = Format::kTsv, .paths = {path}, .on_bad_row = OnBadRow::kSkip});
  Rows all;
  for (Record row; reader->next(row);) all.push_back(row.fields);
  EXPECT_EQ(all, plain({{"1", "2"}, {"3", "4"}, {"6", "7"}}));
  EXPECT_EQ(reader->rows(), 3);
  EXPECT_EQ(reader->skipped(), 8);
  ASSERT_EQ(reader->reasons().size(), RecordReader::kMaxReasons);
  EXPECT_EQ(reader->reasons()[0], path.string() + ":3: has 1 column, the header 2");
  EXPECT_EQ(
      message({.format = Format::kTsv, .paths = {file("g", "a\tb\n1\n")}, .on_bad_row = OnBadRow::kSkip}),
      "g: no row is left; 1 were skipped, the first because g:2: has 1 column, the header 2");
}

TEST_F(Records, ReadingMayGoOnBehindABadRow) {
  const auto reader = open_records({.format = Format::kCsv, .paths = {file("f", "a,b\n\"1\"x,2\n3,4\n")}});
  Record row;
  EXPECT_THROW(reader->next(row), BadRow);
  ASSERT_TRUE(reader->next(row));
  EXPECT_EQ(row.text(1), "4");
}

TEST_F(Records, JsonlGivesTextsNumbersAndLists) {
  EXPECT_EQ(rows(Format::kJsonl,
                 R"({"t":"a\nb","n":3,"l":["x","y"],"o":{}})"
                 "\n \r\n"
                 R"({"l":[],"n":-0.5,"t":true})",
                 {"t", "n", "l"}),
            (Rows{{{"a\nb"}, {"3"}, {"x", "y"}}, {{"true"}, {"-0.5"}, {}}}));
  EXPECT_EQ(message(Format::kJsonl, "{\"a\":1,\"b\":2}\n", {"c"}),
            "f:1: has no \"c\"; there are \"a\", \"b\"");
  EXPECT_EQ(message(Format::kJsonl, "{\"a\":null}\n", {"a"}), "f:1: is null at \"a\"");
  EXPECT_EQ(
      message(Format::kJsonl, "{\"a\":1}\n{\"a\":{}}\n", {"a"}),
      "f:2: a holds an object of 0 keys; it must be text, a number, true or false, or an array of such");
  EXPECT_EQ(message(Format::kJsonl, "{\"a\":\"\\u0000\"}", {"a"}), "f:1: a holds a NUL");
  EXPECT_NE(message(Format::kJsonl, "{\"a\":1", {"a"}).find("f:1: line 1, column 7"), std::string::npos)
      << message(Format::kJsonl, "{\"a\":1", {"a"});
  EXPECT_EQ(message(Format::kJsonl, "\n\n", {"a"}), "f: no row");
  EXPECT_EQ(message(Format::kJsonl, "{}"), "rows of JSON need the keys of the wanted fields");
}

TEST_F(Records, ConllGivesSentencesOfWordsAndTags) {
  const std::string conll =
      "-DOCSTART- -X- O O\n\nEU NNP B-NP I-ORG\nrejects  VBZ B-VP O\r\n \n\n-DOCSTART- -X- O O\n\nPeter NNP "
      "B-NP I-PER";
  EXPECT_EQ(rows(Format::kConll, conll), (Rows{{{"EU", "rejects"}, {"I-ORG", "O"}}, {{"Peter"}, {"I-PER"}}}));
  EXPECT_EQ(rows(Format::kConll, conll, {"2"}), (Rows{{{"NNP", "VBZ"}}, {{"NNP"}}}));
  EXPECT_EQ(rows(Format::kConll, "New York\tB\n\n", {"1", "2"}), (Rows{{{"New York"}, {"B"}}}));
  EXPECT_EQ(message(Format::kConll, "a O\nb\n\nc O\n"), "f:2: has 1 column, the first line 2");
  EXPECT_EQ(message(Format::kConll, "a\tO\n\tO\n"), "f:2: column 1 is empty");
  EXPECT_EQ(message(Format::kConll, "a O\n", {"1", "3"}),
            "f:1: has no column \"3\"; columns are numbers, there are 2");
  EXPECT_EQ(message(Format::kConll, "-DOCSTART- O\n\n"), "f: no row");
  const auto path = file("f", "a O\nb\nc O\n\nd O\n");
  EXPECT_EQ(rows({.format = Format::kConll, .paths = {path}, .on_bad_row = OnBadRow::kSkip}),
            (Rows{{{"d"}, {"O"}}}))
      << "all of the sentence with the bad line is left out";
}

const std::string kSquad = R"({"version":"v2.0","data":[{"title":"T","paragraphs":[{"qas":[],"context":"-"},
  {"context":"Café au lait, 3 €.","qas":[
    {"id":"q1","question":"What?","answers":[{"text":"au","answer_start":5},{"text":"€","answer_start":16}]},
    {"id":"q2","question":"No?","is_impossible":true,"answers":[],"plausible_answers":[{"text":"Café","answer_start":0}]}]}]},
  {"paragraphs":[]}]})";

TEST_F(Records, SquadGivesAQuestionARowWithPlacesInBytes) {
  EXPECT_EQ(rows(Format::kSquad, kSquad),
            (Rows{{{"q1"}, {"T"}, {"Café au lait, 3 €."}, {"What?"}, {"au", "€"}, {"6", "17"}},
                  {{"q2"}, {"T"}, {"Café au lait, 3 €."}, {"No?"}, {}, {}}}));
  EXPECT_EQ(rows(Format::kSquad, kSquad, {"question", "id"}), plain({{"What?", "q1"}, {"No?", "q2"}}));
  const auto damaged = [&](const std::string& from, const std::string& to) {
    std::string json = kSquad;
    json.replace(json.find(from), from.size(), to);
    return message(Format::kSquad, json);
  };
  EXPECT_EQ(
      damaged("\"answer_start\":5", "\"answer_start\":6"),
      "f: data[0].paragraphs[1].qas[0].answers[0].answer_start is 6, where the context does not read \"au\"");
  EXPECT_EQ(damaged("\"answer_start\":16", "\"answer_start\":1600"),
            "f: data[0].paragraphs[1].qas[0].answers[1].answer_start is 1600, where the context does not "
            "read \"€\"");
  EXPECT_EQ(damaged("\"text\":\"au\"", "\"text\":\"\""),
            "f: data[0].paragraphs[1].qas[0].answers[0].text is empty");
  EXPECT_NE(damaged("\"question\":\"What?\",", "").find("data[0].paragraphs[1].qas[0].question"),
            std::string::npos);
  EXPECT_NE(damaged("\"data\"", "\"date\"").find("f: data"), std::string::npos);
  EXPECT_EQ(message(Format::kSquad, "{\"data\":[]}"), "f: no row");
  EXPECT_EQ(
      message(Format::kSquad, kSquad, {"answer"}),
      "f: has no column \"answer\"; there are \"id\", \"title\", \"context\", \"question\", \"answers\", "
      "\"answer_starts\"; did you mean \"answers\"?");
}

TEST_F(Records, SquadOfManyEmptyParagraphsTakesNoStack) {
  std::string json = "{\"data\":[";
  for (int i = 0; i < 200000; ++i) json += "{\"paragraphs\":[]},";
  EXPECT_EQ(message(Format::kSquad, json + "{\"paragraphs\":[]}]}"), "f: no row");
}

TEST_F(Records, ParallelLinesBelongTogether) {
  const auto en = file("f.en", "a b\n\nc\n"), de = file("f.de", "A\nB\nC");
  EXPECT_EQ(rows({.format = Format::kParallel, .paths = {en, de}, .columns = {"source", "target"}}),
            plain({{"a b", "A"}, {"", "B"}, {"c", "C"}}));
  EXPECT_EQ(message({.format = Format::kParallel, .paths = {en, file("g", "A\n")}}),
            "g: has 1 lines, but f.en beside it has more; line N of each must belong together");
  EXPECT_EQ(message({.format = Format::kParallel, .paths = {file("g", "A\n"), en}}),
            "g: has 1 lines, but f.en beside it has more; line N of each must belong together");
  EXPECT_EQ(message({.format = Format::kParallel, .paths = {en}}),
            "parallel text needs a file for each column; one is given");
  EXPECT_EQ(message({.format = Format::kParallel, .paths = {en, de}, .columns = {"x"}}),
            "1 columns are named, but there are 2");
  EXPECT_EQ(message({.format = Format::kParallel, .paths = {file("h", ""), file("g", "")}}),
            "h and the files after it: no row");
}

TEST_F(Records, LinesGoFromFileToFile) {
  EXPECT_EQ(rows({.format = Format::kLines, .paths = {file("a", "1\r\n2\n"), file("b", ""), file("c", "3")}}),
            plain({{"1"}, {"2"}, {"3"}}));
  EXPECT_EQ(message({.format = Format::kLines, .paths = {file("a", "ok\n\xE4\xB8\n")}, .columns = {"text"}}),
            "a:2: is not UTF-8 at byte 0 of the row");
}

TEST_F(Records, SurviveRandomDamage) {
  std::mt19937 random(3);
  const std::vector<std::pair<Format, std::string>> files = {
      {Format::kTsv, "a\tb\n1\t2\n3\t4\n"},
      {Format::kCsv, "a,b\n\"1\n\",2\n3,\"\"\"4\"\n"},
      {Format::kJsonl, "{\"a\":[\"x\"],\"b\":1}\n{\"a\":\"y\",\"b\":2}\n"},
      {Format::kConll, "x O\ny B\n\nz O\n"},
      {Format::kSquad, kSquad},
      {Format::kLines, "a\nb\n"}};
  for (int round = 0; round < 1500; ++round) {
    auto [format, contents] = files[round % files.size()];
    for (size_t n = 1 + random() % 3; n > 0; --n)
      contents[random() % contents.size()] = static_cast<char>(random() % 256);
    if (random() % 4 == 0) contents.resize(random() % contents.size());
    const Strings columns = format == Format::kJsonl ? Strings{"a", "b"} : Strings{};
    message({.format = format,
             .paths = {file("f", contents)},
             .columns = columns,
             .on_bad_row = random() % 2 ? OnBadRow::kSkip : OnBadRow::kStop});
  }
}

TEST(SampleRecords, AreReadWhole) {
  const auto count = [](Format format, std::vector<std::string> names, Strings columns, bool header) {
    std::vector<std::filesystem::path> paths;
    for (const std::string& name : names) paths.push_back(testing::sample_data(name));
    const auto reader =
        open_records({.format = format, .paths = paths, .columns = columns, .header = header});
    for (Record row; reader->next(row);) {
      EXPECT_EQ(row.fields.size(), reader->columns().size());
      if (format == Format::kConll) {
        EXPECT_EQ(row.list(0).size(), row.list(1).size());
      }
    }
    return reader->rows();
  };
  TRIREME_SKIP_WITHOUT(testing::sample_data("sst2-glue"));
  EXPECT_EQ(count(Format::kTsv, {"sst2-glue/train.tsv", "sst2-glue/dev.tsv"}, {"label", "sentence"}, true),
            60614 + 6735);
  EXPECT_EQ(count(Format::kTsv,
                  {"sentiment-uci/amazon_cells_labelled.txt", "sentiment-uci/imdb_labelled.txt",
                   "sentiment-uci/yelp_labelled.txt"},
                  {"1", "2"}, false),
            2838);
  EXPECT_EQ(count(Format::kConll, {"ner-wikigold/train.conll"}, {}, false), 1189)
      << "without the lines between documents";
  EXPECT_EQ(count(Format::kConll, {"ner-wikigold/dev.conll"}, {}, false), 199);
  EXPECT_GT(count(Format::kConll, {"ner-wnut17/train.conll", "ner-wnut17/dev.conll"}, {}, false), 4000);
  EXPECT_EQ(count(Format::kJsonl, {"sum-scitldr/train.jsonl"}, {"source", "target"}, false), 1992);
  EXPECT_EQ(count(Format::kParallel, {"mt-multi30k-en-de/train.en", "mt-multi30k-en-de/train.de"},
                  {"en", "de"}, false),
            29000);
  EXPECT_GT(count(Format::kParallel,
                  {"qa-squad-val/val.context", "qa-squad-val/val.question", "qa-squad-val/val.answer",
                   "qa-squad-val/val.span"},
                  {}, false),
            4284);
}

}  // namespace
}  // namespace trireme
