// Scores by class, for people and for programs.
#pragma once

#include <boost/json/object.hpp>

#include <string>
#include <vector>

#include "tasks/scores_classification.h"
#include "tasks/scores_multilabel.h"

namespace trireme {

// A table: a line a class with precision, recall, F1 and support (how often it is gold), and the averages. `names`: of the
// classes, by number; control characters and bytes that are not UTF-8 are shown as "?". Throws ShapeError where names are
// not one a class, and without examples.
std::string classification_report(const ConfusionMatrix& matrix, const std::vector<std::string>& names);
std::string multi_label_report(const MultiLabelScores& scores, const std::vector<std::string>& names);

// The same as JSON: {"accuracy", "matthews", "count", "micro", "macro", "weighted", "classes": {NAME: {"precision",
// "recall", "f1", "support"}}}. Throws as above, and ShapeError for two classes of one name or one that is not UTF-8.
boost::json::object classification_report_json(const ConfusionMatrix& matrix, const std::vector<std::string>& names);
// With "subset_accuracy" and "hamming_loss" in place of accuracy and matthews, and "labels" of classes.
boost::json::object multi_label_report_json(const MultiLabelScores& scores, const std::vector<std::string>& names);

// A name as it can stand in one line of a terminal; and how many columns it takes there, about.
std::string printable_name(const std::string& name);
size_t columns_of(const std::string& name);

}  // namespace trireme
