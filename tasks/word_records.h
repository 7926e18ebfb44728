// Sentences cut into words, with a tag a word.
#pragma once

#include "tasks/task.h"

namespace trireme {

struct WordRecord {
  std::vector<std::string> words, tags;  // tags: empty where they were not read
  std::string where;                     // "FILE:LINE" of its beginning, for messages
};
struct WordRecords {
  std::vector<WordRecord> records;
  std::vector<std::string> notes;  // skipped rows
};

// CoNLL files (task.text_column: the words', by default the first; task.label_column: the tags', by default
// the last), or JSONL with arrays of words and of tags (by default "tokens" or "words", and "tags" or
// "ner_tags"). Throws FileError naming file, line and reason.
WordRecords read_word_records(const std::vector<std::string>& paths, const TaskOptions& options,
                              bool labelled);
// Each line a sentence, its words parted by white space.
WordRecords word_records_of(const std::vector<std::string>& lines);

}  // namespace trireme
