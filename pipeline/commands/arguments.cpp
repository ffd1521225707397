#include "pipeline/commands/arguments.h"

#include <algorithm>
#include <boost/program_options.hpp>
#include <sstream>

#include "common/error.h"
#include "common/text.h"

namespace salient::pipeline {
namespace po = boost::program_options;
namespace {

constexpr const char* kPositional = "salient-positional";
constexpr unsigned kHelpWidth = 120;

std::vector<OptionRow> with_common_rows(std::vector<OptionRow> rows) {
  rows.push_back({"threads", "N", "CPU threads; default: every core"});
  rows.push_back({"log-level", "LEVEL", "debug, info, warn (default), error or off"});
  rows.push_back({"help,h", "", "this text"});
  return rows;
}

struct Names {
  std::vector<std::string> long_names;
  std::string letter;
};

Names split_names(const std::string& name) {
  Names names;
  for (const std::string& part : split(name, ',')) {
    if (part.size() == 1) {
      names.letter = part;
    } else {
      names.long_names.push_back(part);
    }
  }
  return names;
}

void add(po::options_description& description, const OptionRow& row, const std::string& long_name, const std::string& letter,
         const std::string& help) {
  const std::string name = letter.empty() ? long_name : long_name + "," + letter;
  if (row.value.empty()) {
    description.add_options()(name.c_str(), help.c_str());
    return;
  }
  auto* value = po::value<std::vector<std::string>>()->value_name(row.value);
  if (row.repeated) value->composing();
  description.add_options()(name.c_str(), value, help.c_str());
}

std::string make_help(const CommandText& text, const po::options_description& visible) {
  std::ostringstream out;
  out << "usage: salient " << text.name << " [options]" << (text.positional.empty() ? "" : " ") << text.positional << "\n\n"
      << text.description << "\n\n"
      << visible;
  if (!text.examples.empty()) out << "\nexamples:\n" << text.examples;
  return out.str();
}

}  // namespace

Arguments::Arguments(const CommandText& text, const std::vector<OptionRow>& declared, const std::vector<std::string>& words)
    : command_(text.name) {
  const std::vector<OptionRow> rows = with_common_rows(declared);
  po::options_description visible("options", kHelpWidth, kHelpWidth / 2);
  po::options_description all;
  std::vector<std::string> known;
  for (const OptionRow& row : rows) {
    const Names names = split_names(row.name);
    for (size_t i = 0; i < names.long_names.size(); ++i) {
      std::string help = row.help;
      for (size_t other = 1; i == 0 && other < names.long_names.size(); ++other) {
        help += fmt::format("{}--{}", other == 1 ? " (also: " : ", ", names.long_names[other]);
      }
      if (i == 0 && names.long_names.size() > 1) help += ")";
      if (i == 0) add(visible, row, names.long_names[i], names.letter, help);
      add(all, row, names.long_names[i], i == 0 ? names.letter : "", help);
      known.push_back("--" + names.long_names[i]);
    }
  }
  all.add_options()(kPositional, po::value<std::vector<std::string>>());
  po::positional_options_description positional;
  positional.add(kPositional, -1);
  help_ = make_help(text, visible);

  po::variables_map found;
  try {
    const auto style = po::command_line_style::default_style & ~po::command_line_style::allow_guessing;
    po::store(po::command_line_parser(words).options(all).positional(positional).style(style).run(), found);
  } catch (const po::unknown_option& error) {
    std::string option = error.get_option_name();
    option.resize(std::min(option.size(), option.find('=')));  // --limt=3
    fail(ErrorKind::kInvalidArgument, "salient {}: unknown option {}{}", command_, option, did_you_mean(option, known));
  } catch (const po::error& error) {
    fail(ErrorKind::kInvalidArgument, "salient {}: {}", command_, error.what());
  }
  for (const OptionRow& row : rows) {
    const Names names = split_names(row.name);
    std::vector<std::string> values;
    bool given = false;
    for (const std::string& name : names.long_names) {
      if (found.count(name) == 0) continue;
      given = true;
      if (row.value.empty()) continue;
      const auto& more = found[name].as<std::vector<std::string>>();
      values.insert(values.end(), more.begin(), more.end());
    }
    if (!given) continue;
    if (!row.value.empty() && !row.repeated && values.size() > 1) {
      fail(ErrorKind::kInvalidArgument, "salient {}: --{} is given {} times", command_, names.long_names.front(), values.size());
    }
    values_.emplace_back(names.long_names.front(), std::move(values));
  }
  if (found.count(kPositional) != 0) positional_ = found[kPositional].as<std::vector<std::string>>();
  wants_help_ = has("help");
  if (!wants_help_ && text.positional.empty() && !positional_.empty()) {
    fail(ErrorKind::kInvalidArgument, "salient {}: unexpected argument '{}'; values follow their option: --model DIR", command_,
         positional_.front());
  }
}

const std::vector<std::string>* Arguments::find(const std::string& name) const {
  for (const auto& [key, values] : values_) {
    if (key == name) return &values;
  }
  return nullptr;
}

bool Arguments::has(const std::string& name) const { return find(name) != nullptr; }

std::string Arguments::text(const std::string& name) const {
  const auto* values = find(name);
  if (values == nullptr) {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("salient {}: --{} is missing", command_, name))
        .with_hint(fmt::format("salient {} --help shows how it is used", command_));
  }
  return values->front();
}

std::string Arguments::text_or(const std::string& name, const std::string& fallback) const {
  return has(name) ? text(name) : fallback;
}

int64_t Arguments::integer_or(const std::string& name, int64_t fallback, int64_t least, int64_t most) const {
  if (!has(name)) return fallback;
  const std::string found = text(name);
  int64_t value = 0;
  size_t used = 0;
  try {
    value = std::stoll(found, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used != found.size() || found.empty() || value < least || value > most) {
    fail(ErrorKind::kInvalidArgument, "salient {}: --{}: found '{}', expected a whole number from {} to {}", command_, name, found,
         least, most);
  }
  return value;
}

std::optional<int> Arguments::runtime_bits(const std::string& name) const {
  if (!has(name)) return std::nullopt;
  const std::string found = text(name);
  if (found == "8") return 8;
  if (found == "16") return 16;
  fail(ErrorKind::kInvalidArgument, "salient {}: --{}: found '{}', expected 8, or 16 (as computed)", command_, name, found);
}

std::vector<std::string> Arguments::values(const std::string& name) const {
  const auto* found = find(name);
  return found != nullptr ? *found : std::vector<std::string>();
}

std::vector<std::string> Arguments::list(const std::string& name) const {
  std::vector<std::string> parts;
  for (const std::string& value : values(name)) {
    for (const std::string& part : split(value, ',')) {
      if (!part.empty()) parts.push_back(part);
    }
  }
  return parts;
}

}  // namespace salient::pipeline
