#include "eval/lm_eval_samples.h"

#include <algorithm>

#include "common/hash.h"
#include "eval/python_literal.h"
#include "eval/row_order.h"
#include "models/jinja/text.h"

namespace salient::eval {
namespace {

// Columns that a function of the bundled tasks adds, in its order.
std::vector<std::string> added_columns(const Json& config) {
  if (config.value("process_docs", "") == "!function hellaswag.process_docs") return {"query", "choices", "gold"};
  return {};
}

std::vector<std::string> filters_of(const Json& config) {
  std::vector<std::string> names;
  for (const Json& filter : config.value("filter_list", Json::array())) names.push_back(filter.value("name", "none"));
  if (names.empty()) names.emplace_back("none");
  return names;
}

std::string python_number(double value) { return models::jinja::format_float(value); }

// [log-probability, greedy] as texts; of a whole text the log-probability alone.
OrderedJson likelihood(const DocumentRecord& document, size_t i, bool rolling) {
  const Response& response = document.response;
  if (rolling) return python_number(response.log_probs[i]);
  return OrderedJson::array(
      {python_number(response.log_probs[i]), i < response.is_greedy.size() && response.is_greedy[i] != 0 ? "True" : "False"});
}

// Prompt and continuation of each log-likelihood; of a whole text the text alone.
std::vector<std::pair<std::string, std::string>> requests_of(const DocumentRecord& document) {
  std::vector<std::pair<std::string, std::string>> out;
  const std::vector<std::string>& prompts = document.prompts;
  const std::vector<std::string>& continuations = document.continuations;
  if (prompts.empty()) return out;
  for (size_t i = 0; i < document.response.log_probs.size(); ++i) {
    out.emplace_back(prompts[std::min(i, prompts.size() - 1)],
                     continuations.empty() ? std::string() : continuations[std::min(i, continuations.size() - 1)]);
  }
  return out;
}

struct Responses {
  OrderedJson arguments = OrderedJson::object();
  OrderedJson raw = OrderedJson::array();
  OrderedJson filtered = OrderedJson::array();

  void add(OrderedJson argument, OrderedJson response, OrderedJson kept) {
    arguments["gen_args_" + std::to_string(arguments.size())] = std::move(argument);
    raw.push_back(std::move(response));
    filtered.push_back(std::move(kept));
  }
};

Responses responses_of(const TaskResult& task, const DocumentRecord& document, const std::string& filter) {
  Responses out;
  if (task.output_type == OutputType::kGenerateUntil) {
    OrderedJson texts = OrderedJson::array();
    for (int64_t i = 0; i < task.config.value("repeats", int64_t{1}); ++i) texts.push_back(document.response.text);
    const auto extracted =
        std::find_if(document.extracted.begin(), document.extracted.end(), [&](const auto& e) { return e.first == filter; });
    const OrderedJson arguments = OrderedJson::parse(dump_json(task.config.value("generation_kwargs", Json::object())));
    out.add({{"arg_0", document.prompts.empty() ? "" : document.prompts.front()}, {"arg_1", arguments}}, std::move(texts),
            extracted == document.extracted.end() ? document.response.text : extracted->second);
  }
  const bool rolling = task.output_type == OutputType::kLoglikelihoodRolling;
  const auto requests = requests_of(document);
  for (size_t i = 0; i < requests.size(); ++i) {
    OrderedJson argument = {{"arg_0", requests[i].first}};
    if (!rolling) argument["arg_1"] = requests[i].second;
    const OrderedJson value = likelihood(document, i, rolling);
    out.add(std::move(argument), OrderedJson::array({value}), value);
  }
  return out;
}

}  // namespace

std::vector<OrderedJson> lm_eval_samples(const TaskResult& task) {
  const RowOrder order = read_row_order(task.file);
  const std::vector<std::string> last = added_columns(task.config);
  std::vector<OrderedJson> samples;
  for (const std::string& filter : filters_of(task.config)) {
    for (size_t i = 0; i < task.documents.size(); ++i) {
      const DocumentRecord& document = task.documents[i];
      const OrderedJson row = ordered_row(document.row, order, last);
      Responses responses = responses_of(task, document, filter);
      const std::string target = python_text(document.target);
      OrderedJson metrics = OrderedJson::array();
      OrderedJson values = OrderedJson::object();
      const std::string suffix = filter == "none" ? "" : "," + filter;
      for (const Score& score : document.scores) {
        if (!score.metric.ends_with(suffix) || (suffix.empty() && score.metric.find(',') != std::string::npos)) continue;
        const std::string name = score.metric.substr(0, score.metric.size() - suffix.size());
        metrics.push_back(name);
        const bool weighted = task.output_type == OutputType::kLoglikelihoodRolling;
        values[name] = weighted ? OrderedJson::array({score.value, static_cast<int64_t>(score.weight)}) : OrderedJson(score.value);
      }
      OrderedJson sample = {{"doc_id", i},
                            {"doc", row},
                            {"target", target},
                            {"arguments", std::move(responses.arguments)},
                            {"resps", std::move(responses.raw)},
                            {"filtered_resps", std::move(responses.filtered)},
                            {"filter", filter},
                            {"metrics", std::move(metrics)},
                            {"doc_hash", sha256_hex(row.dump(2, ' ', false, OrderedJson::error_handler_t::replace))},
                            {"prompt_hash", sha256_hex(document.prompts.empty() ? "" : document.prompts.front())},
                            {"target_hash", sha256_hex(target)}};
      sample.update(values);
      samples.push_back(std::move(sample));
    }
  }
  return samples;
}

std::string lm_eval_task_hash(const std::vector<OrderedJson>& samples) {
  Sha256 hash;
  for (const OrderedJson& sample : samples) {
    for (const char* key : {"doc_hash", "prompt_hash", "target_hash"}) hash.update(sample.at(key).get<std::string>());
  }
  return hash.hex();
}

}  // namespace salient::eval
