#include "calibration/response_spans.h"

#include <algorithm>

#include "common/error.h"
#include "common/file.h"
#include "models/io/model_files.h"

namespace salient::calibration {
namespace fs = std::filesystem;
namespace {

// Never in a real conversation; where they are, the comparison with the plain rendering fails.
constexpr std::string_view kBegin = "\x02salient:answer\x03";
constexpr std::string_view kEnd = "\x02salient:end\x03";

struct MarkerRow {
  std::string_view opening;
  std::string_view closing;
};
constexpr MarkerRow kKnownMarkers[] = {
    {"<|im_start|>assistant\n", "<|im_end|>"},                               // ChatML, Qwen
    {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"},     // Llama 3
    {"<start_of_turn>model\n", "<end_of_turn>"},                             // Gemma
    {"<|assistant|>\n", "<|end|>"},                                          // Phi
    {"<\uFF5CAssistant\uFF5C>", "<\uFF5Cend\u2581of\u2581sentence\uFF5C>"},  // DeepSeek
    {"[/INST]", "</s>"},                                                     // Mistral, Llama 2
};

constexpr std::string_view kSpaces = " \t\n\v\f\r";

std::string_view right_trimmed(std::string_view text) {
  const size_t last = text.find_last_not_of(" \t\r\n");
  return text.substr(0, last == std::string_view::npos ? 0 : last + 1);
}

std::string_view trimmed(std::string_view text) {
  const std::string_view right = right_trimmed(text);
  return right.substr(std::min(right.find_first_not_of(" \t\r\n"), right.size()));
}

// Takes the marks out of a rendering. Nothing unless the rest is `plain`.
std::optional<std::vector<TextSpan>> unmarked(std::string_view marked, std::string_view plain) {
  std::vector<TextSpan> spans;
  std::string text;
  while (true) {
    const size_t begin = marked.find(kBegin);
    text += marked.substr(0, begin);
    if (begin == std::string_view::npos) break;
    marked.remove_prefix(begin + kBegin.size());
    const size_t end = marked.find(kEnd);
    if (end == std::string_view::npos) return std::nullopt;
    spans.push_back({text.size(), text.size() + end});
    text += marked.substr(0, end);
    marked.remove_prefix(end + kEnd.size());
  }
  if (text != plain) return std::nullopt;
  std::erase_if(spans, [](const TextSpan& span) { return span.begin == span.end; });
  return spans;
}

// Where the name begins of the first tag {% name %} at or behind `from`; npos when there is none. By hand: std::regex recurses for
// every space.
size_t find_tag(std::string_view source, std::string_view name, size_t from) {
  const auto behind_spaces = [&](size_t at) { return std::min(source.find_first_not_of(kSpaces, at), source.size()); };
  const auto behind_sign = [&](size_t at) { return at < source.size() && (source[at] == '-' || source[at] == '+') ? at + 1 : at; };
  for (size_t tag = source.find("{%", from); tag != std::string_view::npos; tag = source.find("{%", tag + 2)) {
    const size_t begin = behind_spaces(behind_sign(tag + 2));
    if (!source.substr(begin).starts_with(name)) continue;
    const size_t end = behind_sign(behind_spaces(begin + name.size()));
    if (source.substr(end).starts_with("%}")) return begin;
  }
  return std::string_view::npos;
}

std::string with_renamed_tags(std::string_view source, std::string_view name, std::string_view new_name) {
  std::string renamed;
  size_t done = 0;
  for (size_t at = find_tag(source, name, 0); at != std::string_view::npos; at = find_tag(source, name, done)) {
    renamed.append(source.substr(done, at - done)).append(new_name);
    done = at + name.size();
  }
  return renamed.append(source.substr(done));
}

// The template with each generation block as a call of a macro that puts marks around it: the tags stay where they are, so that
// white space control works as before. Nothing when it has no such block.
std::optional<std::string> with_marks(const std::string& source) {
  if (find_tag(source, "generation", 0) == std::string_view::npos) return std::nullopt;
  const std::string marked =
      with_renamed_tags(with_renamed_tags(source, "generation", "call salient_answer()"), "endgeneration", "endcall");
  return fmt::format("{{% macro salient_answer() %}}{{{{ '{}' }}}}{{{{ caller() }}}}{{{{ '{}' }}}}{{% endmacro +%}}{}", kBegin,
                     kEnd, marked);
}

// Nothing where the marks break the template (a generation tag in a raw block): the other ways are left then.
std::optional<models::ChatTemplate> marked_template(const std::string& source, const std::string& origin,
                                                    const OrderedJson& special_tokens) {
  auto marked = with_marks(source);
  if (!marked) return std::nullopt;
  try {
    return models::ChatTemplate::parse(std::move(*marked), origin, special_tokens);
  } catch (const Error&) {
    return std::nullopt;
  }
}

OrderedJson turn(std::string_view role, std::string_view content) {
  OrderedJson result = OrderedJson::object();
  result["role"] = role;
  result["content"] = content;
  return result;
}

OrderedJson first_turns(const OrderedJson& messages, size_t count) {
  OrderedJson result = OrderedJson::array();
  for (size_t i = 0; i < count; ++i) result.push_back(messages[i]);
  return result;
}

std::optional<std::string> try_render(const models::ChatTemplate& chat_template, const OrderedJson& messages,
                                      models::ChatRenderOptions options, bool add_generation_prompt) {
  options.add_generation_prompt = add_generation_prompt;
  try {
    return chat_template.render(messages, options);
  } catch (const Error&) {  // templates refuse conversations that end too early, for example
    return std::nullopt;
  }
}

std::optional<TextSpan> added_by_turn(const models::ChatTemplate& chat_template, const OrderedJson& messages, size_t index,
                                      const models::ChatRenderOptions& options, std::string_view whole) {
  const auto before = try_render(chat_template, first_turns(messages, index), options, true);
  const auto after = try_render(chat_template, first_turns(messages, index + 1), options, false);
  if (!before || !after || !whole.starts_with(*after) || !after->starts_with(*before)) return std::nullopt;
  return TextSpan{before->size(), std::max(before->size(), right_trimmed(*after).size())};
}

// `closing`: what the template writes behind an answer, empty where that is not known.
std::optional<TextSpan> between_marks(const models::ChatTemplate& chat_template, const OrderedJson& messages, size_t index,
                                      const models::ChatRenderOptions& options, std::string_view whole, std::string_view closing) {
  const OrderedJson& answer = messages[index];
  if (!answer.contains("content") || !answer["content"].is_string()) return std::nullopt;
  const auto content = answer["content"].get<std::string>();
  for (const std::string_view text : {std::string_view(content), trimmed(content)}) {
    OrderedJson marked = messages;
    marked[index]["content"] = fmt::format("{}{}{}", kBegin, text, kEnd);
    const auto rendered = try_render(chat_template, marked, options, options.add_generation_prompt);
    if (!rendered) continue;
    auto spans = unmarked(*rendered, whole);
    if (!spans || spans->size() != 1) continue;
    TextSpan span = spans->front();
    if (!closing.empty() && whole.substr(span.end).starts_with(closing)) span.end += closing.size();
    return span;
  }
  return std::nullopt;
}

std::vector<TextSpan> find_marked(std::string_view text, std::string_view opening, std::string_view closing) {
  std::vector<TextSpan> spans;
  for (size_t at = text.find(opening); at != std::string_view::npos; at = text.find(opening, at)) {
    const size_t begin = at + opening.size();
    const size_t close = text.find(closing, begin);
    const size_t end = close == std::string_view::npos ? text.size() : close + closing.size();
    if (end > begin) spans.push_back({begin, end});
    at = end;
  }
  return spans;
}

// What both texts begin with. Where they part inside a mark ("</s>" and "<|user|>"), up to the end of the mark before.
std::string_view common_marks(std::string_view a, std::string_view b) {
  const size_t length = static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
  const std::string_view common = a.substr(0, length);
  if (length == a.size() || length == b.size()) return common;
  const size_t last = common.find_last_of(">] \n");
  return common.substr(0, last == std::string_view::npos ? 0 : last + 1);
}

std::optional<ResponseMarkers> learn_markers(const models::ChatTemplate& chat_template) {
  models::ChatRenderOptions options;
  options.variables["strftime_now"] = models::kFixedTemplateDate;
  const OrderedJson question = OrderedJson::array({turn("user", kBegin)});
  const OrderedJson both = OrderedJson::array({turn("user", kBegin), turn("assistant", kEnd)});
  const OrderedJson more = OrderedJson::array({turn("user", kBegin), turn("assistant", kEnd), turn("user", kBegin)});
  const auto base = try_render(chat_template, question, options, false);
  const auto open = try_render(chat_template, question, options, true);
  const auto closed = try_render(chat_template, both, options, false);
  const auto goes_on = try_render(chat_template, more, options, false);
  if (!closed || !goes_on) return std::nullopt;
  const size_t asked = closed->find(kBegin);
  const size_t answered = closed->find(kEnd);
  const size_t answered_too = goes_on->find(kEnd);
  if (asked == std::string::npos || answered == std::string::npos || answered < asked || answered_too == std::string::npos)
    return std::nullopt;
  ResponseMarkers markers;
  markers.closing = right_trimmed(common_marks(std::string_view(*closed).substr(answered + kEnd.size()),
                                               std::string_view(*goes_on).substr(answered_too + kEnd.size())));
  if (base && open && open->starts_with(*base)) markers.opening = open->substr(base->size());
  // A template without an opening of its own, or with another one (that asks for thinking): what stands between a question and its
  // answer.
  const std::string between = closed->substr(asked + kBegin.size(), answered - asked - kBegin.size());
  if (trimmed(markers.opening).empty() || between.find(markers.opening) == std::string::npos) markers.opening = between;
  if (trimmed(markers.opening).empty() || markers.closing.empty()) return std::nullopt;
  return markers;
}

}  // namespace

ResponseFinder ResponseFinder::from_folder(const fs::path& folder) {
  if (!models::ChatTemplate::exists_in(folder)) return {};
  ResponseFinder finder;
  finder.chat_template_ = models::ChatTemplate::from_folder(folder);
  finder.marked_template_ =
      marked_template(finder.chat_template_->source(), folder.string(), finder.chat_template_->special_tokens());
  finder.markers_ = learn_markers(*finder.chat_template_);
  return finder;
}

ResponseFinder ResponseFinder::from_source(std::string source, std::string origin, const OrderedJson& special_tokens) {
  ResponseFinder finder;
  finder.marked_template_ = marked_template(source, origin, special_tokens);
  finder.chat_template_ = models::ChatTemplate::parse(std::move(source), std::move(origin), special_tokens);
  finder.markers_ = learn_markers(*finder.chat_template_);
  return finder;
}

RenderedConversation ResponseFinder::render(const OrderedJson& messages, const models::ChatRenderOptions& options,
                                            std::string_view where) const {
  if (!chat_template_) fail(ErrorKind::kInternal, "{}: no chat template to render with", where);
  RenderedConversation result;
  result.text = with_context(where, [&] { return chat_template_->render(messages, options); });
  if (marked_template_) {
    if (const auto marked = try_render(*marked_template_, messages, options, options.add_generation_prompt)) {
      if (auto spans = unmarked(*marked, result.text); spans && !spans->empty()) {
        result.responses = std::move(*spans);
        return result;
      }
    }
  }
  const std::string_view closing = markers_ ? std::string_view(markers_->closing) : std::string_view();
  for (size_t i = 0; i < messages.size(); ++i) {
    if (!messages[i].is_object() || messages[i].value("role", OrderedJson()) != "assistant") continue;
    auto span = added_by_turn(*chat_template_, messages, i, options, result.text);
    if (!span) span = between_marks(*chat_template_, messages, i, options, result.text, closing);
    if (!span) {
      throw Error(
          ErrorKind::kUnsupported,
          fmt::format(
              "{}: the chat template renders turn {} (assistant) in another way when it stands alone: where the answer lies in "
              "the text cannot be told",
              where, i + 1))
          .with_hint("take loss_mask 'all', a template with {% generation %} blocks, or rows of tokens with a loss_mask");
    }
    if (span->end > span->begin) result.responses.push_back(*span);
  }
  return result;
}

std::vector<TextSpan> ResponseFinder::in_text(std::string_view text) const {
  if (markers_) {
    if (auto spans = find_marked(text, markers_->opening, markers_->closing); !spans.empty()) return spans;
  }
  for (const MarkerRow& row : kKnownMarkers) {
    if (auto spans = find_marked(text, row.opening, row.closing); !spans.empty()) return spans;
  }
  return {};
}

}  // namespace salient::calibration
