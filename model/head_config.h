// An encoder's head in config.json: architectures, id2label, label2id, num_labels, problem_type.
#pragma once

#include "model/config_reader.h"

namespace trireme {

// `family` begins the names of its classes: "Bert" of BertForMaskedLM, BertModel. Without architectures: kLanguageModel.
// id2label has the ids 0 to n - 1, and label2id and num_labels agree with it; a classifier without any has transformers'
// two labels, LABEL_0 and LABEL_1. problem_type is what it says, else regression for one label and one class of several for more.
void read_head(ConfigReader& r, const std::string& family, bool pretraining, ModelConfig& c);
void write_head(const ModelConfig& c, const std::string& family, boost::json::object& o);
// Throws ConfigError where the head lacks labels, or the family has no such head.
void check_head(const ModelConfig& c, bool pretraining, const std::string& prefix);

}  // namespace trireme
