// Texts as segments that fit a model's length.
#pragma once

#include "tasks/task.h"

namespace trireme {

// One text, or two in the tokenizer's form for pairs (pair not null), with special tokens, cut to max_length
// tokens as transformers' longest_first does. Counts in `cut` where something was. Throws ConfigError if
// special tokens leave no room.
TaskSegment text_segment(const Tokenizer& tokenizer, const std::string& text, const std::string* pair,
                         int64_t max_length, int64_t& cut);
// "3 of 100 texts were cut to 128 tokens (data.sequence_length)".
std::string cut_note(int64_t cut, int64_t all, int64_t max_length);

}  // namespace trireme
