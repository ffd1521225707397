#include "pipeline/commands/setting_options.h"

#include <algorithm>
#include <regex>

#include "common/error.h"
#include "common/text.h"
#include "pipeline/setting_values.h"

namespace salient::pipeline {
namespace {

// Flags of one setting: the first is the name that Arguments knows it by.
struct FlagNames {
  std::string yes;  // "clip,apply-clip"
  std::string no;   // "no-clip,no-apply-clip"
};

std::string with_dashes(std::string_view name) {
  std::string text(name);
  std::replace(text.begin(), text.end(), '_', '-');
  return text;
}

// Flags that were there before settings had one table keep their place in front: "samples" before "max-calib-samples".
FlagNames flag_names(const QuantizationSetting& setting) {
  std::vector<std::string> names = {with_dashes(setting.key)};
  for (const std::string& alias : split(setting.aliases, ',')) {
    if (!alias.empty()) names.push_back(with_dashes(alias));
  }
  if (setting.key.starts_with("max_calib_") || setting.form == SettingForm::kOverrides) std::reverse(names.begin(), names.end());
  FlagNames flags;
  for (const std::string& name : names) {
    flags.yes += (flags.yes.empty() ? "" : ",") + name;
    flags.no += (flags.no.empty() ? "no-" : ",no-") + name;
  }
  return flags;
}

std::string first_name(const std::string& names) { return names.substr(0, names.find(',')); }

// "salient quantize: --bits:1:1: found ..." without the line and the column, which a word on the command line does not have.
template <typename Body>
auto without_line(const std::string& command, Body&& body) {
  try {
    return body();
  } catch (const Error& error) {
    const std::regex place("(" + command + ": --[a-z-]+):[0-9]+:[0-9]+");
    throw Error(error.kind(), std::regex_replace(error.message(), place, "$1")).with_code(error.code()).with_hint(error.hint());
  }
}

std::string as_list(const std::vector<std::string>& words, auto&& item) {
  std::string yaml = "[";
  for (const std::string& word : words) yaml += (yaml.size() > 1 ? ", " : "") + item(word);
  return yaml + "]";
}

std::string quoted(const std::string& word) { return dump_json(Json(word)); }

ConfigNode read_words(const QuantizationSetting& setting, const std::vector<std::string>& words, const std::string& where) {
  switch (setting.form) {
    case SettingForm::kFlag:
    case SettingForm::kSwitch: break;
    case SettingForm::kWord: {
      const ConfigNode node = ConfigNode::parse(words.front(), where);
      return node.kind() == ConfigNode::Kind::kScalar ? node : ConfigNode::parse(quoted(words.front()), where);
    }
    case SettingForm::kText: return ConfigNode::parse(quoted(words.front()), where);
    case SettingForm::kTexts: return ConfigNode::parse(as_list(words, quoted), where);
    case SettingForm::kFile: return ConfigNode::load(words.front());
    case SettingForm::kOverrides:
      return with_context(where, [&] { return ConfigNode::parse(as_list(words, override_to_yaml), where); });
  }
  return {};
}

}  // namespace

std::vector<OptionRow> setting_options() {
  std::vector<OptionRow> rows;
  for (const QuantizationSetting& setting : quantization_settings()) {
    const FlagNames names = flag_names(setting);
    const bool repeated = setting.form == SettingForm::kTexts || setting.form == SettingForm::kOverrides;
    rows.push_back({names.yes, std::string(setting.value), std::string(setting.help), repeated});
    if (setting.form == SettingForm::kFlag) rows.push_back({names.no, "", "turns it off"});
  }
  return rows;
}

GivenSettings given_settings(const Arguments& arguments, const std::string& command) {
  GivenSettings given;
  QuantizationConfig scratch;  // read here already, so that errors name the flag
  for (const QuantizationSetting& setting : quantization_settings()) {
    const FlagNames names = flag_names(setting);
    const auto add = [&](const std::string& flag, auto&& read) {
      if (!arguments.has(flag)) return;
      without_line(command, [&] {
        add_setting(given, setting.key, read(fmt::format("{}: --{}", command, flag)));
        setting.read(given.back().value, scratch);
      });
    };
    const bool is_flag = setting.form == SettingForm::kFlag || setting.form == SettingForm::kSwitch;
    add(first_name(names.yes), [&](const std::string& where) {
      return is_flag ? ConfigNode::parse("true", where) : read_words(setting, arguments.values(first_name(names.yes)), where);
    });
    if (setting.form == SettingForm::kFlag)
      add(first_name(names.no), [](const std::string& where) { return ConfigNode::parse("false", where); });
  }
  return given;
}

GivenSettings read_quant_config(const std::string& word, const std::string& command) {
  const bool is_json = word.find_first_not_of(" \t\n") != std::string::npos && word[word.find_first_not_of(" \t\n")] == '{';
  return given_settings(is_json ? ConfigNode::parse(word, command + ": --quant-config") : ConfigNode::load(word));
}

}  // namespace salient::pipeline
