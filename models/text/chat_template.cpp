#include "models/text/chat_template.h"

#include <array>
#include <cstdio>
#include <ctime>
#include <optional>
#include <utility>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"
#include "models/gguf/gguf_summary.h"
#include "models/gguf/gguf_tokenizer_json.h"
#include "models/io/model_files.h"
#include "models/jinja/json_text.h"
#include "models/jinja/template.h"

namespace salient::models {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kTemplateFile = "chat_template.jinja";
constexpr std::string_view kConfigFile = "tokenizer_config.json";
constexpr std::string_view kTokensFile = "special_tokens_map.json";
constexpr size_t kMostSpecialTokens = 1000;  // each is a variable of the template, looked up one by one

// The file that holds a template of its own: transformers keeps others than the default in a folder.
fs::path template_file(const fs::path& folder, std::string_view name) {
  if (name == "default") return model_file(folder, kTemplateFile);
  return model_file(folder, fmt::format("additional_chat_templates/{}.jinja", name));
}

std::optional<Json> read_if_present(const fs::path& path) {
  if (!fs::exists(path)) return std::nullopt;
  Json json = read_json_file(path);
  if (!json.is_object()) fail(ErrorKind::kCorruption, "{}: found {}, expected an object", path.string(), json.type_name());
  return json;
}

// A token is a string, or an object whose "content" is one.
std::optional<std::string> token_text(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object() && value.contains("content") && value["content"].is_string()) return value["content"].get<std::string>();
  return std::nullopt;
}

OrderedJson special_tokens_of(const Json& config, const fs::path& path) {
  OrderedJson tokens = OrderedJson::object();
  for (const auto& [key, value] : config.items()) {
    if (!key.ends_with("_token")) continue;
    const auto text = token_text(value);
    if (!text) continue;
    if (tokens.size() == kMostSpecialTokens)
      fail(ErrorKind::kUnsupported, "{}: found more than {} keys that end in _token, expected a few", path.string(),
           kMostSpecialTokens);
    tokens[key] = *text;
  }
  return tokens;
}

// `config`: tokenizer_config.json of the model, where there is one.
OrderedJson special_tokens_in(const fs::path& folder, const std::optional<Json>& config) {
  OrderedJson tokens = config ? special_tokens_of(*config, model_file(folder, kConfigFile)) : OrderedJson::object();
  if (!tokens.empty()) return tokens;
  const fs::path map_path = model_file(folder, kTokensFile);
  const auto map = read_if_present(map_path);
  return map ? special_tokens_of(*map, map_path) : tokens;
}

// The template text of "chat_template" in tokenizer_config.json; nullopt when there is none of that name.
std::optional<std::string> template_in(const Json& config, std::string_view name, const fs::path& path) {
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return std::nullopt;
  if (found->is_string()) return name == "default" ? std::optional(found->get<std::string>()) : std::nullopt;
  if (!found->is_array())
    fail(ErrorKind::kCorruption, "{}: chat_template: found {}, expected a string or a list of named templates", path.string(),
         found->type_name());
  for (const Json& entry : *found) {
    if (!entry.is_object() || !entry.contains("name") || !entry.contains("template") || !entry["name"].is_string() ||
        !entry["template"].is_string()) {
      fail(ErrorKind::kCorruption, "{}: chat_template: found an entry without the strings \"name\" and \"template\"",
           path.string());
    }
    if (entry["name"] == name) return entry["template"].get<std::string>();
  }
  return std::nullopt;
}

// transformers fills the fields in which templates look for a message's reasoning from whichever of them is given.
OrderedJson with_reasoning_aliases(const OrderedJson& message) {
  constexpr std::array<const char*, 3> kFields = {"reasoning_content", "thinking", "reasoning"};
  for (const char* field : kFields) {
    const auto found = message.find(field);
    if (found == message.end() || found->is_null()) continue;
    OrderedJson aliased = OrderedJson::object();
    aliased["thinking"] = *found;
    for (const auto& [key, value] : message.items()) aliased[key] = value;
    aliased["reasoning_content"] = *found;
    return aliased;
  }
  return message;
}

OrderedJson checked_messages(const OrderedJson& messages, const std::string& origin) {
  if (!messages.is_array())
    fail(ErrorKind::kInvalidArgument, "{}: found {} as messages, expected a list of {{\"role\", \"content\"}} objects", origin,
         messages.type_name());
  OrderedJson checked = OrderedJson::array();
  for (size_t i = 0; i < messages.size(); ++i) {
    if (!messages[i].is_object())
      fail(ErrorKind::kInvalidArgument, "{}: message {}: found {}, expected an object with \"role\" and \"content\"", origin, i + 1,
           messages[i].type_name());
    checked.push_back(with_reasoning_aliases(messages[i]));
  }
  return checked;
}

void check_objects(const OrderedJson& variables, const char* name, const std::string& origin) {
  const auto list = variables.find(name);
  if (list == variables.end() || list->is_null()) return;
  bool valid = list->is_array();
  for (const OrderedJson& item : *list) valid = valid && item.is_object();
  if (!valid) fail(ErrorKind::kInvalidArgument, "{}: the variable '{}' must be a list of objects", origin, name);
}

// A clock that stands at "2024-07-26" or "2024-07-26T13:45:00", so that the same conversation gives the same text on every day.
std::function<std::string(const std::string&)> fixed_clock(const OrderedJson& moment, const std::string& origin) {
  std::tm time{};
  const std::string text = moment.is_string() ? moment.get<std::string>() : "";
  const int fields = std::sscanf(text.c_str(), "%d-%d-%dT%d:%d:%d", &time.tm_year, &time.tm_mon, &time.tm_mday, &time.tm_hour,
                                 &time.tm_min, &time.tm_sec);
  if (fields != 3 && fields != 6) {
    fail(ErrorKind::kInvalidArgument,
         "{}: the variable 'strftime_now' must be a moment such as \"2024-07-26\" or \"2024-07-26T13:45:00\"", origin);
  }
  time.tm_year -= 1900;
  time.tm_mon -= 1;
  std::tm complete = time;
  timegm(&complete);  // fills in the weekday and the day of the year
  return [complete](const std::string& format) {
    if (format.empty()) return std::string();
    std::string out(format.size() * 4 + 256, '\0');
    out.resize(std::strftime(out.data(), out.size(), format.c_str(), &complete));
    return out;
  };
}

}  // namespace

struct ChatTemplate::Parts {
  std::string source, origin;
  OrderedJson special_tokens;
  jinja::Template program;
};

ChatTemplate::ChatTemplate(std::unique_ptr<const Parts> parts) : parts_(std::move(parts)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

ChatTemplate ChatTemplate::parse(std::string source, std::string origin, OrderedJson special_tokens) {
  jinja::Template program = jinja::Template::parse(source, origin);
  return ChatTemplate(
      std::make_unique<const Parts>(Parts{std::move(source), std::move(origin), std::move(special_tokens), std::move(program)}));
}

ChatTemplate ChatTemplate::from_folder(const fs::path& folder, std::string_view name) {
  if (const auto file = find_gguf_model(folder)) {
    const Json config = read_gguf_tokenizer_config(*file);
    if (auto text = template_in(config, name, *file))
      return parse(std::move(*text), file->string() + ": tokenizer.chat_template", special_tokens_of(config, *file));
    throw Error(ErrorKind::kNotFound,
                fmt::format("{}: found no chat template '{}' in it (tokenizer.chat_template)", file->string(), name))
        .with_hint("use plain prompts, or the folder of the model that the file was made from");
  }
  const fs::path config_path = model_file(folder, kConfigFile);
  const std::optional<Json> config = read_if_present(config_path);
  OrderedJson tokens = special_tokens_in(folder, config);
  if (const fs::path file = template_file(folder, name); fs::exists(file))
    return parse(read_text_file(file), file.string(), std::move(tokens));
  if (config) {
    if (auto text = template_in(*config, name, config_path))
      return parse(std::move(*text), config_path.string() + ": chat_template", std::move(tokens));
  }
  throw Error(ErrorKind::kNotFound,
              fmt::format("{}: found no chat template '{}' in {} or {}", folder.string(), name, kTemplateFile, kConfigFile))
      .with_hint(
          "A base model has none: take chat_template.jinja from the instruction-tuned model of the same family, or use plain "
          "prompts.");
}

ChatTemplate ChatTemplate::from_file(const fs::path& file, const fs::path& folder) {
  return parse(read_text_file(file), file.string(), special_tokens_in(folder, read_if_present(model_file(folder, kConfigFile))));
}

bool ChatTemplate::exists_in(const fs::path& folder) {
  if (const auto file = find_gguf_model(folder)) return read_gguf_tokenizer_config(*file).contains("chat_template");
  if (fs::exists(model_file(folder, kTemplateFile))) return true;
  const auto config = read_if_present(model_file(folder, kConfigFile));
  return config && config->contains("chat_template") && !(*config)["chat_template"].is_null();
}

std::string ChatTemplate::render(const OrderedJson& messages, const ChatRenderOptions& options) const {
  const std::string& origin = parts_->origin;
  jinja::RenderOptions render_options;
  jinja::Variables variables;
  const auto add = [&](const std::string& name, const OrderedJson& value) {
    with_context(fmt::format("{}: variable '{}'", origin, name), [&] { variables.emplace_back(name, jinja::from_json(value)); });
  };
  add("messages", checked_messages(messages, origin));
  add("tools", nullptr);  // always defined, as none
  add("documents", nullptr);
  add("add_generation_prompt", options.add_generation_prompt);
  for (const auto& [name, token] : parts_->special_tokens.items()) add(name, token);
  check_objects(options.variables, "tools", origin);
  check_objects(options.variables, "documents", origin);
  for (const auto& [name, value] : options.variables.items()) {
    if (name == "strftime_now") {
      render_options.strftime_now = fixed_clock(value, origin);
    } else {
      add(name, value);
    }
  }
  return parts_->program.render(variables, render_options);
}

const std::string& ChatTemplate::source() const { return parts_->source; }
const OrderedJson& ChatTemplate::special_tokens() const { return parts_->special_tokens; }
std::string ChatTemplate::sha256() const { return sha256_hex(parts_->source); }

}  // namespace salient::models
