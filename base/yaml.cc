#include "base/yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <istream>
#include <streambuf>

#include "base/error.h"
#include "base/files.h"
#include "base/utf8.h"

namespace trireme {
namespace {

bool is_control(unsigned char c) { return (c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0x7f; }
// What would break a message's one line.
bool is_layout(char c) { return is_control(static_cast<unsigned char>(c)) || c == '\n' || c == '\t' || c == '\r'; }

// Lets yaml-cpp read from memory without a copy.
class ViewBuffer : public std::streambuf {
 public:
  explicit ViewBuffer(std::string_view text) {
    char* begin = const_cast<char*>(text.data());  // only read from
    setg(begin, begin, begin + text.size());
  }
};

// Builds the tree from events. Every refusal happens at the event, so nothing is ever expanded.
class Builder : public YAML::EventHandler {
 public:
  Builder(std::string_view text, const std::string& source) : text_(text), source_(source) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ > 0) fail(mark, "a second document begins here; a file holds one");
  }
  void OnDocumentEnd() override {}
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    fail(mark, "aliases (*name) are not allowed; write the value out");
  }
  void OnAnchor(const YAML::Mark& mark, const std::string&) override {
    fail(mark, "anchors (&name) are not allowed; write the value out");
  }
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    add(node_at(mark, "?", anchor));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    YamlNode node = node_at(mark, tag, anchor);
    node.kind = tag == "?" ? classify_plain_scalar(value) : ScalarKind::kString;
    node.scalar = value;
    add(std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Type::kList);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Type::kMap);
  }
  void OnMapEnd() override {
    check_duplicates(open_.back());
    close();
  }

  YamlNode take() { return std::move(root_); }

 private:
  struct Open {
    YamlNode node;
    bool has_key = false;  // a key was read and its value comes next (maps)
  };

  [[noreturn]] void fail(const YAML::Mark& mark, const std::string& what) const {
    throw ConfigError(yaml_position(source_, mark.line + 1, mark.column + 1) + what);
  }

  // A node with its position, after the refusals that concern all kinds.
  YamlNode node_at(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    if (anchor != 0) fail(mark, "anchors (&name) are not allowed; write the value out");
    // "?" and "!" are yaml-cpp's marks for plain and quoted text; a tag that was written stands at the mark itself.
    const size_t at = mark.pos < 0 ? text_.size() : static_cast<size_t>(mark.pos);
    const bool written = at < text_.size() && text_[at] == '!';
    if (written || (tag != "?" && tag != "!" && !tag.empty()))
      fail(mark, "tags (!name) are not allowed; remove it");
    if (++num_nodes_ > kMaxYamlNodes) fail(mark, text("more than ", kMaxYamlNodes, " values"));
    YamlNode node;
    node.line = mark.line + 1;
    node.column = mark.column + 1;
    return node;
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YamlNode::Type type) {
    YamlNode node = node_at(mark, tag == "!" ? "" : tag, anchor);
    if (open_.size() >= static_cast<size_t>(kMaxYamlDepth))
      fail(mark, text("nested deeper than ", kMaxYamlDepth, " levels"));
    if (!open_.empty() && open_.back().node.type == YamlNode::Type::kMap && !open_.back().has_key)
      fail(mark, "a key is a list or a map; write a plain key, or close the bracket");
    node.type = type;
    open_.push_back({std::move(node)});
  }

  void close() {
    YamlNode done = std::move(open_.back().node);
    open_.pop_back();
    add(std::move(done));
  }

  void add(YamlNode node) {
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    Open& parent = open_.back();
    if (parent.node.type == YamlNode::Type::kList) {
      parent.node.items.push_back(std::move(node));
    } else if (!parent.has_key) {
      if (node.scalar.empty())
        throw ConfigError(yaml_position(source_, node.line, node.column) + "a key is empty or null");
      if (node.scalar.size() > kMaxYamlKeyBytes || std::any_of(node.scalar.begin(), node.scalar.end(), is_layout))
        throw ConfigError(text(yaml_position(source_, node.line, node.column), "a key of ", node.scalar.size(),
                               " bytes; keys are one line of at most ", kMaxYamlKeyBytes));
      parent.node.entries.push_back({std::move(node.scalar), node.line, node.column, {}});
      parent.has_key = true;
    } else {
      parent.node.entries.back().value = std::move(node);
      parent.has_key = false;
    }
  }

  // The keys that lead to the map that is now ending: "train.early_stopping." ("data.train[1]." within lists).
  std::string path_prefix() const {
    std::string path;
    for (size_t i = 0; i + 1 < open_.size(); ++i) {
      const YamlNode& node = open_[i].node;
      if (node.type == YamlNode::Type::kList) {
        if (!path.empty()) path.pop_back();
        path += text("[", node.items.size(), "].");
      } else {
        path += node.entries.back().key + ".";
      }
    }
    return path;
  }

  void check_duplicates(const Open& map) const {
    std::vector<const YamlNode::Entry*> sorted;
    for (const auto& entry : map.node.entries) sorted.push_back(&entry);
    std::stable_sort(sorted.begin(), sorted.end(), [](auto* a, auto* b) { return a->key < b->key; });
    const YamlNode::Entry* found = nullptr;
    const YamlNode::Entry* first = nullptr;
    for (size_t i = 1; i < sorted.size(); ++i) {
      if (sorted[i]->key == sorted[i - 1]->key && (!found || sorted[i] < found)) {
        found = sorted[i];
        first = sorted[i - 1];
      }
    }
    if (found)
      throw ConfigError(text(yaml_position(source_, found->line, found->column), path_prefix(), found->key,
                             " is given twice, first on line ", first->line, "; remove one"));
  }

  std::string_view text_;
  const std::string& source_;
  std::vector<Open> open_;
  YamlNode root_;
  size_t num_nodes_ = 0;
  int documents_ = 0;
};

// Size and characters, before yaml-cpp sees the text (it would guess UTF-16 from zero bytes).
void check_text(std::string_view yaml, const std::string& source) {
  check<ConfigError>(yaml.size() <= kMaxYamlBytes, source, ": is ", yaml.size(), " bytes; the limit is ", kMaxYamlBytes);
  int line = 1;
  size_t line_start = 0;
  for (size_t i = 0; i < yaml.size(); ++i) {
    if (yaml[i] == '\n') {
      ++line;
      line_start = i + 1;
    }
    const bool lone_return = yaml[i] == '\r' && (i + 1 == yaml.size() || yaml[i + 1] != '\n');
    if (is_control(static_cast<unsigned char>(yaml[i])) || lone_return)
      throw ConfigError(text(yaml_position(source, line, static_cast<int>(i - line_start) + 1), "control character ",
                             static_cast<int>(static_cast<unsigned char>(yaml[i])), " in the text; remove it"));
  }
  if (is_valid_utf8(yaml)) return;
  line = 1;  // the first line that is not UTF-8: a sequence never crosses a line end
  for (size_t begin = 0; begin < yaml.size(); ++line) {
    size_t end = std::min(yaml.find('\n', begin), yaml.size());
    if (!is_valid_utf8(yaml.substr(begin, end - begin)))
      throw ConfigError(yaml_position(source, line, 1) + "the line is not UTF-8; save the file as UTF-8");
    begin = end + 1;
  }
}

boost::json::value scalar_to_json(const YamlNode& node, const std::string& source) {
  const auto fail = [&](const std::string& what) {
    throw ConfigError(yaml_position(source, node.line, node.column) + what);
  };
  switch (node.kind) {
    case ScalarKind::kNull: return nullptr;
    case ScalarKind::kBool: return node.scalar == "true";
    case ScalarKind::kString: return boost::json::string(node.scalar);
    case ScalarKind::kInteger:
      if (auto value = parse_integer(node.scalar)) return *value;
      fail(describe(node) + " does not fit 64 bits");
      break;
    case ScalarKind::kFloat:
      if (auto value = parse_number(node.scalar)) return *value;
      fail(describe(node) + " does not fit a double");
      break;
    case ScalarKind::kAmbiguous:
      fail(describe(node) + " means different things to different YAML readers; quote it if it is a string");
  }
  return nullptr;
}

}  // namespace

YamlNode parse_yaml(std::string_view yaml, const std::string& source) {
  if (yaml.substr(0, 3) == "\xef\xbb\xbf") yaml.remove_prefix(3);  // a byte order mark
  check_text(yaml, source);
  ViewBuffer buffer(yaml);
  std::istream in(&buffer);
  Builder builder(yaml, source);
  try {
    YAML::Parser parser(in);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& e) {
    const bool known = !e.mark.is_null();
    throw ConfigError(yaml_position(source, known ? e.mark.line + 1 : 0, known ? e.mark.column + 1 : 0) +
                      "not valid YAML: " + excerpt(e.msg, 120));
  }
  return builder.take();
}

YamlNode read_yaml(const std::filesystem::path& path) {
  std::string yaml;
  try {
    yaml = read_text_file(path, kMaxYamlBytes);
  } catch (const FileError& e) {
    throw ConfigError(e.what());
  }
  return parse_yaml(yaml, path.string());
}

boost::json::value yaml_to_json(const YamlNode& node, const std::string& source) {
  switch (node.type) {
    case YamlNode::Type::kList: {
      boost::json::array list;
      for (const YamlNode& item : node.items) list.push_back(yaml_to_json(item, source));
      return list;
    }
    case YamlNode::Type::kMap: {
      boost::json::object map;
      for (const auto& entry : node.entries) map[entry.key] = yaml_to_json(entry.value, source);
      return map;
    }
    case YamlNode::Type::kScalar: break;
  }
  return scalar_to_json(node, source);
}

std::string yaml_position(const std::string& source, int line, int column) {
  return line > 0 ? text(source, ":", line, ":", column, ": ") : source + ": ";
}

std::string excerpt(std::string_view text, size_t max_bytes) {
  std::string shown(text.substr(0, max_bytes));
  if (text.size() > max_bytes) {
    // Not in the middle of a character.
    while (!shown.empty() && (static_cast<unsigned char>(text[shown.size()]) & 0xc0) == 0x80) shown.pop_back();
    shown += "...";
  }
  std::replace_if(shown.begin(), shown.end(), is_layout, ' ');
  return shown;
}

std::string describe(const YamlNode& node) {
  if (node.type == YamlNode::Type::kList) return "a list";
  if (node.type == YamlNode::Type::kMap) return "a map";
  const std::string shown = excerpt(node.scalar);
  switch (node.kind) {
    case ScalarKind::kNull: return "null";
    case ScalarKind::kBool: return shown;
    case ScalarKind::kInteger: return "the integer " + shown;
    case ScalarKind::kFloat: return "the number " + shown;
    case ScalarKind::kAmbiguous: return shown;
    case ScalarKind::kString: break;
  }
  return "the string \"" + shown + "\"";
}

}  // namespace trireme
